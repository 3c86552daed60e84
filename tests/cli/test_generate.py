"""`ramify generate` against LLM.generate."""

from __future__ import annotations

import re

import pytest

from ramify import LLM, SamplingParams
from ramify.cli.main import main


def test_json_equals_the_library(run_json, bytes_model):
    document = run_json(
        "generate",
        "--model",
        bytes_model,
        "--prompt",
        "abc",
        "de",
        "--n",
        "2",
        "--max-tokens",
        "5",
        "--seed",
        "7",
        "--logprobs",
        "1",
    )
    params = SamplingParams(n=2, max_tokens=5, seed=7, logprobs=1)
    expected = LLM(bytes_model).generate(["abc", "de"], params)
    assert [r["prompt"] for r in document["results"]] == ["abc", "de"]
    for result, reference in zip(document["results"], expected, strict=True):
        got = [output["token_ids"] for output in result["outputs"]]
        assert got == [output.token_ids for output in reference.outputs]
        assert result["usage"]["generated_tokens"] == 10
        assert len(result["outputs"][0]["logprobs"]) == 5


def test_one_prompt_streams_the_same_text(bytes_model, capsys):
    argv = [
        "generate",
        "--model",
        bytes_model,
        "--prompt",
        "abc",
        "--max-tokens",
        "12",
        "--seed",
        "3",
    ]
    assert main(argv) == 0
    (expected,) = LLM(bytes_model).generate("abc", SamplingParams(max_tokens=12, seed=3))
    printed = capsys.readouterr().out
    assert printed.startswith("abc")
    visible = [char for char in expected.outputs[0].text if char.isascii() and char.isalnum()]
    assert all(char in printed for char in visible)
    assert "12 tokens in" in printed


def test_prompt_file(run_json, bytes_model, tmp_path):
    path = tmp_path / "prompt.txt"
    path.write_text("two\nlines\n")
    argv = ["generate", "--model", bytes_model, "--prompt-file", str(path), "--max-tokens", "1"]
    assert run_json(*argv)["results"][0]["prompt"] == "two\nlines\n"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ((), "prompt, prompt_file: expected at least one prompt, got none"),
        (("--prompt", ""), "prompt: expected at least one token"),
        (("--prompt", "a", "--max-tokens", "0"), "max_tokens: expected an int >= 1, got 0"),
        (("--prompt-file", "nowhere.txt"), "nowhere.txt: No such file or directory"),
    ],
)
def test_bad_input(argv, says, fails, bytes_model):
    assert says in fails("generate", "--model", bytes_model, *argv)


def test_drafts_are_asked_for_as_json_and_counted(bytes_model, run_json, fails):
    argv = ["generate", "--model", bytes_model, "--prompt", "abcabc", "--temperature", "0"]
    argv += ["--max-tokens", "100"]
    plain = run_json(*argv)
    drafting = run_json(*argv, "--speculative-config", '{"method": "ngram", "max_depth": 3}')
    (a,), (b,) = plain["results"], drafting["results"]
    assert a["outputs"][0]["token_ids"] == b["outputs"][0]["token_ids"]
    assert a["usage"]["drafted_tokens"] == 0 < b["usage"]["drafted_tokens"]
    assert "expected one of ngram" in fails(*argv, "--speculative-config", '{"method": "x"}')


def test_structured_output_is_asked_for_by_one_of_four_flags(
    bytes_model, run_json, fails, tmp_path
):
    schema, grammar = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text('{"type": "array", "items": {"enum": [1, 22]}, "maxItems": 3}')
    grammar.write_text('start: "<" inner ">"\ninner: "<" inner2 ">" | "ab"\ninner2: "ab"')
    argv = ["generate", "--model", bytes_model, "--prompt", "a", "--n", "3", "--seed", "1"]
    shapes = {
        ("--json-schema", str(schema)): r"\[ ?((1|22)( ?, ?(1|22))* ?)?\]",
        ("--regex", "[ab]{3}"): "[ab]{3}",
        ("--choices", "yes", "no way"): "yes|no way",
        ("--grammar", str(grammar)): "<+ab>+",
    }
    for flags, shape in shapes.items():
        (result,) = run_json(*argv, *flags)["results"]
        for output in result["outputs"]:
            assert re.fullmatch(shape, output["text"]) and output["finish_reason"] == "stop", flags
    assert "structured.regex: expected a regex" in fails(*argv, "--regex", "(")
    assert "exactly one of" in fails(*argv, "--regex", "a", "--choices", "b")
    assert "json_schema: expected a readable text file" in fails(*argv, "--json-schema", "nowhere")
