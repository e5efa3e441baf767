"""Flags of `generate` and `chat` that are fields of a request, under the same names."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

MaxNewTokens = Annotated[int | None, typer.Option(help="Most tokens to generate.")]
MinNewTokens = Annotated[int | None, typer.Option(help="No end of text before so many tokens.")]
Temperature = Annotated[float | None, typer.Option(help="0 takes the likeliest token.")]
TopK = Annotated[int | None, typer.Option(help="Likeliest tokens to sample; 0: all.")]
TopP = Annotated[float | None, typer.Option(help="Probability mass to sample from.")]
MinP = Annotated[
    float | None, typer.Option(help="Least probability, relative to the likeliest token's.")
]
TypicalP = Annotated[
    float | None, typer.Option(help="Probability mass of the most typical tokens.")
]
RepetitionPenalty = Annotated[
    float | None, typer.Option(help="Above 1, seen tokens become less likely.")
]
FrequencyPenalty = Annotated[
    float | None, typer.Option(help="Taken from a token's logit each time it was seen.")
]
PresencePenalty = Annotated[
    float | None, typer.Option(help="Taken once from the logit of each seen token.")
]
PenaltyWindow = Annotated[int | None, typer.Option(help="How many tokens back penalties look; 64.")]
LogitBias = Annotated[
    list[str] | None, typer.Option(help="ID=VALUE is added to a token's logit; repeatable.")
]
AllowedTokenIds = Annotated[
    list[int] | None, typer.Option(help="Choose this token or others so named; repeatable.")
]
Seed = Annotated[int | None, typer.Option(help="Same seed, same text.")]
StopSequences = Annotated[list[str] | None, typer.Option(help="End before this text; repeatable.")]
StopTokenIds = Annotated[list[int] | None, typer.Option(help="End with this token; repeatable.")]
Dial = Annotated[
    float | None, typer.Option(help="Above 1, fewer inputs count: faster and less faithful.")
]
IgnoreEos = Annotated[bool | None, typer.Option(help="Go on after an end of text.")]
TimeLimitS = Annotated[
    float | None, typer.Option(help="End after so many seconds, and keep the text.")
]
JsonSchema = Annotated[str | None, typer.Option(help="The text is JSON that obeys this schema.")]
Regex = Annotated[str | None, typer.Option(help="The text matches this regular expression.")]
Grammar = Annotated[str | None, typer.Option(help="The text obeys this grammar, in Lark syntax.")]


def to_fields(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a request from flags by name; what is None was not given."""
    fields = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in flags.items()
        if value is not None
    }
    if "logit_bias" in fields:
        fields["logit_bias"] = dict(map(_bias, fields["logit_bias"]))
    return fields


def to_ids(flag: str, text: str) -> list[int]:
    """Token ids with commas between them."""
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        rule = f"must be token ids with commas, got {text[:40]!r}"
        raise typer.BadParameter(rule, param_hint=flag) from None


def _bias(text: str) -> tuple[int, float]:
    token, _, value = text.partition("=")
    try:
        return int(token), float(value)
    except ValueError:
        rule = f"must be ID=VALUE, got {text[:40]!r}"
        raise typer.BadParameter(rule, param_hint="--logit-bias") from None
