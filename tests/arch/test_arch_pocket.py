"""The pocket model, the scripts that made it and the dialogues that test it belong together."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from gguf import GGUFReader

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "packaging/pocket"
DIALOGUES = ROOT / "tests/data/pocket_dialogues.json"
GGUF = ROOT / "autotuned/data/pocket.gguf"


def test_the_dialogues_are_what_the_corpus_gives(tmp_path):
    made = tmp_path / "dialogues.json"
    subprocess.run([sys.executable, "-B", SCRIPTS / "dialogues.py", made], check=True, timeout=60)
    assert made.read_text() == DIALOGUES.read_text(), f"run: python {SCRIPTS / 'dialogues.py'} {DIALOGUES}"


def test_there_are_a_few_dozen_dialogues_of_each_skill_that_a_client_can_send():
    dialogues = json.loads(DIALOGUES.read_text())
    assert Counter(dialogue["skill"] for dialogue in dialogues) == dict.fromkeys(
        ["faq", "remember", "long_memory", "tools", "literal", "story"], 36
    )
    for dialogue in dialogues:
        assert dialogue["messages"][-1]["role"] in {"user", "tool"}
        assert dialogue["expected"]["content"] or dialogue["expected"]["tool_calls"]


def test_the_model_carries_the_template():
    template = GGUFReader(GGUF).fields["tokenizer.chat_template"].contents()
    assert template == (SCRIPTS / "chat_template.jinja").read_text()
