"""Speech, billed by the characters to be spoken, and transcription, billed by the seconds to be heard."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from litellm_budget_plugin.pricing.audio_duration import audio_duration
from litellm_budget_plugin.pricing.price_sheet import PriceSheet
from litellm_budget_plugin.pricing.tokens import byte_length, probable
from litellm_budget_plugin.pricing.unit_estimate import UnitCost, count
from litellm_budget_plugin.pricing.values import Estimate, Options, Request

# OpenAI and Google give 20 to 25 tokens of audio for a second of speech; nobody speaks slower than 4 characters a second.
_TOKENS_A_CHARACTER = 6
# OpenAI, "Managing costs": an audio token is 100 ms of what is heard. Google counts 32 a second.
_HEARD = {"openai": 10, "azure": 10}
_HEARD_MOST = 32
# Nobody is understood above 8 syllables, or 20 tokens, a second.
_WRITTEN_A_SECOND = 20
_PER_CALL = 96


def estimate_speech(request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Characters, or where a model is billed by tokens the text and a generous guess at the audio, which no argument
    limits; or one price for a piece of music. A lost answer is charged its text: speech is made whether or not its maker
    waits, and LiteLLM bills no audio tokens of it.
    """
    params = request.params
    text, tone = params.get("input"), params.get("instructions")
    characters = len(text) if isinstance(text, str) else len(repr(text))
    per_character, per_piece = sheet.rate("input_cost_per_character"), sheet.rate("output_cost_per_image")
    fixed = characters * per_character + per_piece * (count(params, "n", "sample_count") or 1)
    if per_character or per_piece:
        copies = count(params, "n", "sample_count") or 1
        return UnitCost(fixed, fixed, copies=copies if per_piece else 1, per_byte=per_character).estimate(
            sheet, options
        )
    tokens = sum(byte_length(part) for part in (text, tone) if isinstance(part, str)) + _PER_CALL
    spoken = characters * _TOKENS_A_CHARACTER + _PER_CALL
    spoken = min(spoken, sheet.max_output) if sheet.max_output else spoken
    tier = sheet.tiers[0]
    cost = UnitCost(
        most=tokens * tier.text + spoken * tier.audio_output,
        floor=characters // 4 * tier.plain,
        certain=False,
        per_byte=tier.text + _TOKENS_A_CHARACTER * tier.audio_output,
        tokens=tokens + spoken,
        floor_tokens=characters // 4,
    )
    return cost.estimate(sheet, options)


def estimate_transcription(request: Request, sheet: PriceSheet, options: Options) -> Estimate:
    """Seconds by the file's own header or the lowest rate of its format, times the price of one; and by tokens, where a
    model has a price for them, if that is more. A lost answer is charged the seconds that a file of this size has mostly.
    """
    file = audio_duration(request.params.get("file"))
    per_second = sheet.rate("input_cost_per_second", "output_cost_per_second")
    most, floor = file.most * per_second, file.probable * per_second
    prompt = request.params.get("prompt")
    tier = sheet.tiers[-1]
    heard = file.most * _HEARD.get(sheet.provider or "", _HEARD_MOST)
    asked = (byte_length(prompt) if isinstance(prompt, str) else 0) + _PER_CALL
    written = (
        min(file.most * _WRITTEN_A_SECOND, sheet.max_output) if sheet.max_output else file.most * _WRITTEN_A_SECOND
    )
    by_token = bool(tier.text or tier.media or tier.output)
    if by_token:
        most = max(most, heard * tier.media + asked * tier.text + written * tier.output)
        floor = max(floor, file.probable * 10 * tier.media)
    cost = UnitCost(
        most=most,
        floor=floor,
        known=file.known,
        certain=file.certain and not (by_token and (sheet.max_output is None or sheet.provider not in _HEARD)),
        tokens=heard + asked + written if by_token else 0,
        floor_tokens=file.probable * 10 if by_token else 0,
        per_byte=tier.text,
    )
    return cost.estimate(sheet, options)


def spoken(params: Mapping[str, Any], sheet: PriceSheet) -> int | None:
    """Atto-dollars of a piece of speech, as LiteLLM bills it: characters without white space, or the tokens of the text
    without those of the audio.
    """
    text = params.get("input")
    per_character, per_piece = sheet.rate("input_cost_per_character"), sheet.rate("output_cost_per_image")
    if per_piece or not isinstance(text, str):
        return per_piece or None
    if per_character:
        return sum(map(len, text.split())) * per_character
    return probable(text) * sheet.tiers[0].plain


def heard(seconds: float | None, sheet: PriceSheet) -> int | None:
    """Atto-dollars of a transcript by its seconds."""
    per_second = sheet.rate("output_cost_per_second") or sheet.rate("input_cost_per_second")
    return round(Fraction(seconds) * per_second) if seconds and per_second else None
