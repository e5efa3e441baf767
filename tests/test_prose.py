"""Documents keep the rules of docs/style.md for sentences, as tools/prose.py counts them."""

import importlib.util
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "prose.py"
spec = importlib.util.spec_from_file_location("prose", TOOL)
prose = importlib.util.module_from_spec(spec)
spec.loader.exec_module(prose)

# Documents that still have faults. A number may fall and never rise; a new document has none.
MAX_FAULTS = {"architecture.md": 7, "performance.md": 20}
LONG = "The server " + "and the client " * 8 + "wait."


@pytest.mark.parametrize("path", prose.documents(), ids=lambda path: path.name)
def test_a_document_has_no_sentence_that_breaks_the_rules(path):
    faults = prose.faults(path.read_text(encoding="utf-8"))
    lines = "\n".join(f"{path.name}:{fault.line}: {fault.rule}" for fault in faults)
    assert len(faults) <= MAX_FAULTS.get(path.name, 0), lines


@pytest.mark.parametrize("pronoun", prose.PRONOUNS)
def test_a_sentence_that_begins_with_a_pronoun_is_listed(pronoun):
    faults = prose.faults(f"The server listens. {pronoun} ends.")
    assert faults == [(1, f"begins with {pronoun}", f"{pronoun} ends.")]


def test_a_sentence_of_more_than_25_words_is_listed_with_its_line():
    (fault,) = prose.faults(f"# Title\n\nShort.\n\n- Short. {LONG}\n")
    assert fault == (5, "has 27 words, more than 25", LONG)


def test_a_sentence_may_run_over_lines_and_list_items_are_apart():
    assert len(prose.faults(LONG.replace(" and", "\nand", 1))) == 1
    assert prose.faults("\n".join(f"- {word}" for word in LONG.split())) == []


def test_code_headings_tables_and_pictures_are_no_prose():
    text = f"# It\n\n```sh\n{LONG}\n```\n\n| It |\n|---|\n| {LONG} |\n\n![{LONG}](x.png)\n"
    assert prose.faults(text) == []


def test_inline_code_counts_as_one_word_and_a_link_as_its_text():
    code = f"The command is `{LONG}` here."
    link = "The page [serving.md](serving.md#a) is there."
    assert prose.faults(code) == prose.faults(link) == []


def test_the_command_prints_faults_and_fails(tmp_path, capsys):
    (tmp_path / "page.md").write_text("It ends.\n", encoding="utf-8")
    assert prose.main([str(tmp_path / "page.md")]) == 1
    assert capsys.readouterr().out == f"{tmp_path / 'page.md'}:1: begins with It: It ends.\n"
