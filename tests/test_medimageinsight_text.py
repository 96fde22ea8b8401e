"""The tokenizer gives CLIP's own tokens for any text, from the vocabulary and merges of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import ftfy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.encoders.medimageinsight.tokenizer import Ids, Tokenizer
from tests.medimageinsight_files import write_tokenizer
from tests.shared_data import shared_root

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer

START, END = 49406, 49407


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    assert write_tokenizer(folder) == 49408
    return Tokenizer.read(folder / "vocab.json", folder / "merges.txt", 77)


@pytest.fixture(scope="module")
def clip() -> SimpleTokenizer:
    """open_clip's, which differs in that it undoes HTML twice more and pads with 0."""
    from open_clip.tokenizer import SimpleTokenizer

    plain = SimpleTokenizer()
    plain.clean_fn = lambda text: " ".join(ftfy.fix_text(text).split()).lower()
    return plain


def places_of(ids: Ids) -> Ids:
    """The place of the first end token of each text."""
    return (ids == ids.max()).argmax(axis=1)


REPORTS = st.text(
    st.sampled_from("abcdefgxyz ABC 0123456789.,;:!?'’-–/%()<>&µ°²éüßİſ肺炎😀\u200b\n\t\x00"), max_size=400
)


@given(st.one_of(st.text(max_size=200), REPORTS))
def test_any_text_has_the_tokens_of_clip(tokenizer: Tokenizer, clip: SimpleTokenizer, text: str) -> None:
    ids = tokenizer([text])
    ends = places_of(ids)
    expected = clip([text]).numpy()
    assert ids[0, 0] == START and ids[0, ends[0]] == END
    assert np.array_equal(ids[0, : ends[0] + 1], expected[0, : ends[0] + 1])
    assert (ids[0, ends[0] :] == END).all() and not expected[0, ends[0] + 1 :].any()


def test_the_tokens_of_the_reference(tmp_path: Path) -> None:
    root = shared_root()
    folder = root / "fixtures" / "medimageinsight-tiny" if root else None
    if folder is None or not folder.is_dir():
        pytest.skip("the reference checkpoint medimageinsight-tiny is not here")
    files = folder / "language_model" / "clip_tokenizer_4.16.2"
    tokenizer = Tokenizer.read(files / "vocab.json", files / "merges.txt", 77)
    expected = np.load(folder / "expected.npz")
    ids = tokenizer(json.loads((folder / "expected.json").read_text())["texts"])
    assert np.array_equal(ids, expected["input_ids"])
    assert np.array_equal(np.arange(77)[None] <= places_of(ids)[:, None], expected["attention_mask"].astype(bool))


def test_a_long_text_is_cut_and_keeps_its_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer(["word " * 1000, "x" * 100_000, "", "word " * 75, "word " * 74])
    assert places_of(ids).tolist() == [76, 76, 1, 76, 75]
    assert (ids[0, 1:76] == ids[0, 1]).all()


def test_cut_or_whole_a_long_word_has_the_same_first_tokens(tokenizer: Tokenizer, clip: SimpleTokenizer) -> None:
    letters = "".join(chr(ord("a") + int(n)) for n in np.random.default_rng(0).integers(0, 26, 3000))
    assert np.array_equal(tokenizer([letters]), clip([letters]).numpy())


def test_the_end_token_written_out_ends_a_text_as_in_the_reference(tokenizer: Tokenizer) -> None:
    assert tokenizer(["a <|endoftext|> b"])[0, :6].tolist() == [START, 320, END, 321, END, END]


def test_a_smaller_vocabulary_numbers_its_own_tokens(tmp_path: Path) -> None:
    count = write_tokenizer(tmp_path, 10)
    tokenizer = Tokenizer.read(tmp_path / "vocab.json", tmp_path / "merges.txt", 8)
    ids = tokenizer(["the in", "the in and then some"])
    assert len(tokenizer) == count == 524
    assert ids.shape == (2, 8) and ids.max() == 523 and (ids[:, 0] == 522).all()
    assert places_of(ids)[1] == 7
