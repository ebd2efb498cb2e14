"""The vocabulary as bytes, and text that grows token by token.

``generation`` uses it for each token that is drawn. Invariant: what ``ReplyText`` has given out never
changes, and ends with a whole character.
"""

from __future__ import annotations

import codecs
from typing import Any

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, SPMStreamingDetokenizer

_SPACE_OF_PIECES = "▁".encode()
_FIRST_MOVED = 256


def _byte_of_character() -> dict[str, int]:
    """Byte-level vocabularies write printable bytes as themselves, the others as characters from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {
        chr(_FIRST_MOVED + place): byte for place, byte in enumerate(moved)
    }


class Vocabulary:
    """The tokens of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        detokenizer = tokenizer.detokenizer
        self._pieces: list[Any] | None = None
        self._is_byte_level = isinstance(detokenizer, BPEStreamingDetokenizer)
        self.drops_first_space = False
        if isinstance(detokenizer, SPMStreamingDetokenizer):
            self.drops_first_space = bool(detokenizer.trim_space)
        if self._is_byte_level or isinstance(detokenizer, SPMStreamingDetokenizer):
            self._pieces = detokenizer.tokenmap
        self._bytes = _byte_of_character()

    def bytes_of(self, token: int) -> bytes:
        """What a token stands for; models have more rows than there are tokens, and these are nothing."""
        if self._pieces is None:
            return str(self._tokenizer.decode([token])).encode()
        if token >= len(self._pieces) or (piece := self._pieces[token]) is None:
            return b""
        if not self._is_byte_level:
            return bytes(piece).replace(_SPACE_OF_PIECES, b" ")
        if all(character in self._bytes for character in piece):
            return bytes(self._bytes[character] for character in piece)
        return str(piece).encode()

    def longest_bytes(self) -> int:
        """Of the longest token."""
        if self._pieces is None:
            return 256
        return max((len(piece) for piece in self._pieces if piece is not None), default=1)


class ReplyText:
    """The text of one reply. ``goes_on``: it continues a text, whose last space is not the first one."""

    def __init__(self, vocabulary: Vocabulary, *, goes_on: bool) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drops_space = vocabulary.drops_first_space and not goes_on

    def add(self, token: int) -> str:
        """The characters that are complete with this token."""
        text = self._decoder.decode(self._vocabulary.bytes_of(token))
        if text and self._drops_space:
            self._drops_space = False
            return text.removeprefix(" ")
        return text

    def rest(self) -> str:
        """What a reply that is over still owes: a character that was never completed."""
        return self._decoder.decode(b"", final=True)
