"""`ramify generate`: plain sampling, streamed to the terminal as it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.text import Text

from ramify import LLM
from ramify.cli.cost import usage_document, usage_line
from ramify.cli.export import check_export, export_all
from ramify.cli.flags import StructuredFlags, engine_settings, sampling_params
from ramify.cli.options import GenerateOptions
from ramify.cli.output import Output
from ramify.cli.problems import read_text
from ramify.core.errors import InputError, expected_got
from ramify.core.outputs import RequestOutput
from ramify.core.params import SamplingParams
from ramify.core.structured import StructuredOutput


def execute(options: GenerateOptions, out: Output) -> int:
    """Continue every prompt. Returns 1 when a request failed on its own."""
    prompts = list(options.prompt)
    if options.prompt_file is not None:
        prompts.append(read_text(options.prompt_file, "prompt_file"))
    if not prompts:
        raise InputError(expected_got("prompt, prompt_file", "at least one prompt", "none"))
    check_export(options.export)
    params = sampling_params(options.sampling)
    params = replace(params, structured=_structured(options.structured))
    llm = LLM(**engine_settings(options.engine))
    if out.is_json or len(prompts) > 1:
        # all prompts share the steps; their texts would mix on a terminal if they were streamed
        results = llm.generate(prompts, params)
        for result in results:
            _print(result, out)
    else:
        results = [_stream(llm, prompts[0], params, out)]
    export_all(llm, results, options.export, out)
    out.document({"model": options.engine.model, "results": [_document(r) for r in results]})
    for result in results:
        if result.error is not None:
            out.warn(f"request {result.request_id}: {result.error}")
    return 1 if any(result.error is not None for result in results) else 0


def _structured(flags: StructuredFlags) -> StructuredOutput | None:
    """What the output must look like, if anything. Raises InputError naming the flag."""
    values = {name: value for name, value in vars(flags).items() if value not in (None, ())}
    for name in {"json_schema", "grammar"} & values.keys():
        values[name] = read_text(values[name], name)
    return StructuredOutput(**values) if values else None


def _stream(llm: LLM, prompt: str, params: SamplingParams, out: Output) -> RequestOutput:
    """One prompt: the first branch as it grows, the others when they are done."""
    stream = llm.stream(prompt, params)  # a wrong argument ends here, before anything is shown
    out.say(Text(prompt, style="dim"), end="")
    shown, result = 0, None
    for result in stream:
        text = result.outputs[0].text if result.outputs else ""
        out.say(Text(text[shown:]), end="")
        shown = len(text)
    assert result is not None, "a stream yields at least its end"
    out.say()
    for output in result.outputs[1:]:
        out.say(Text(f"[{output.index}] ", style="cyan") + Text(output.text))
    out.say(Text(usage_line(result.usage), style="dim"))
    return result


def _print(result: RequestOutput, out: Output) -> None:
    out.say(Text(result.prompt or "", style="dim"), end="")
    many: Sequence[str] = [f"[{output.index}] " for output in result.outputs]
    for label, output in zip(many, result.outputs, strict=True):
        out.say((Text(label, style="cyan") if len(many) > 1 else Text()) + Text(output.text))
    out.say(Text(usage_line(result.usage), style="dim"))


def _document(result: RequestOutput) -> dict[str, object]:
    return {
        "prompt": result.prompt,
        "prompt_tokens": len(result.prompt_token_ids),
        "outputs": result.outputs,
        "prompt_logprobs": result.prompt_logprobs,
        "usage": usage_document(result.usage),
        "error": result.error,
    }
