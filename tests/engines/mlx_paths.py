"""Where the pocket model lies in Hugging Face's layout."""

from pathlib import Path

POCKET = Path(__file__).parents[1] / "data" / "pocket-hf"
