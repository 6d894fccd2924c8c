"""The use of each argument: read by the estimate, known to cost nothing, or counted as something unknown.

LiteLLM passes every argument that it does not know on to the provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from litellm_budget_plugin.pricing.input_size import InputCounter
from litellm_budget_plugin.pricing.output_limit import OutputLimit
from litellm_budget_plugin.pricing.scan import LIMIT, Scan, scan, sense_of, words_of

GOOGLE_CONFIG = "generate_content.config"
"""The name of the family for arguments in Google's `config`."""
READ, FREE, COUNTED, REPEATED, UNKNOWN = range(5)


# The readers in `request_formats` and the families' own modules read these.
_READ = {
    "completion": words_of(
        "messages tools functions response_format prediction max_tokens max_completion_tokens n audio modalities system"
    ),
    "text_completion": words_of("prompt suffix max_tokens n best_of echo tools functions response_format"),
    "embedding": words_of("input"),
    "responses": words_of("input instructions tools text text_format max_output_tokens"),
    "messages": words_of("messages system tools output_format output_config max_tokens thinking"),
    "generate_content": words_of("contents config tools systemInstruction system_instruction"),
    GOOGLE_CONFIG: words_of(
        "systemInstruction system_instruction tools responseSchema response_schema responseJsonSchema response_json_schema "
        "thinkingConfig thinking_config responseModalities response_modalities maxOutputTokens max_output_tokens "
        "candidateCount candidate_count"
    ),
    "image_generation": words_of("prompt n size image_size quality partial_images width height resolution"),
    "image_edit": words_of("prompt image mask n size image_size quality partial_images width height resolution"),
    "image_variation": words_of("image n size quality"),
    "speech": words_of("input instructions"),
    "transcription": words_of("file prompt"),
    "rerank": words_of("query documents"),
    "search": words_of("query search_provider max_results num_results limit advanced_settings search_depth mode"),
    "ocr": words_of("document pages document_annotation_format bbox_annotation_format"),
    "video_generation": words_of(
        "prompt input_reference seconds duration duration_seconds durationSeconds n sampleCount sample_count video_count size"
    ),
}  # fmt: skip
# These change how an answer is made or delivered, not how long it or its input may be.
_FREE = words_of(
    "model custom_llm_provider temperature top_p top_k seed user stream stream_options stop stop_sequences tool_choice "
    "parallel_tool_calls presence_penalty frequency_penalty logit_bias logprobs top_logprobs reasoning_effort verbosity "
    "service_tier speed store metadata safety_identifier prompt_cache_key prompt_cache_retention function_call "
    "include_server_side_tool_invocations extra_headers default_headers base_url deployment_id api_type args kwargs "
    "search_provider additional_drop_params timeout organization project cache_control cache_control_injection_points "
    "drop_params aspeech"
)
_FREE_IN = {
    "embedding": words_of("dimensions encoding_format input_type"),
    "responses": words_of("include background truncation max_tool_calls"),
    GOOGLE_CONFIG: words_of(
        "temperature topP topK top_p top_k stopSequences stop_sequences responseMimeType response_mime_type seed "
        "presencePenalty presence_penalty frequencyPenalty frequency_penalty responseLogprobs response_logprobs logprobs "
        "safetySettings safety_settings toolConfig tool_config labels audioTimestamp audio_timestamp"
    ),
    **dict.fromkeys(
        ("image_generation", "image_edit"),
        words_of(
            "response_format style background output_format output_compression moderation aspect_ratio input_fidelity"
        ),
    ),
    "image_variation": words_of("response_format"),
    "speech": words_of("voice response_format"),
    "transcription": words_of("language response_format timestamp_granularities languages"),
    "rerank": words_of("top_n rank_fields return_documents max_chunks_per_doc max_tokens_per_doc"),
    "search": words_of("search_domain_filter max_tokens_per_page country"),
    "ocr": words_of("include_image_base64 image_limit image_min_size"),
}
# Bytes of a dictionary of options that say how to answer, without text.
_OPTION = 256
# Their limits count, and their bytes beyond _OPTION. Nothing else about them is unknown.
_COUNTED = {
    "completion": words_of("thinking enable_prompt_caching"),
    "responses": words_of("reasoning"),
    # The Router passes the query twice.
    "rerank": words_of("input"),
    GOOGLE_CONFIG: words_of("speechConfig speech_config"),
}
# LiteLLM puts these between and around messages.
_REPEATED = words_of(
    "assistant_continue_message user_continue_message initial_prompt_value final_prompt_value bos_token eos_token roles "
    "custom_prompt_dict"
)
# LiteLLM lists these as its own, but their text is sent.
_CARRIERS = _REPEATED | words_of(
    "prompt_id prompt_variables prompt_label prompt_version prompt_environment litellm_system_prompt guardrails hf_model_name "
    "model_config enable_prompt_caching"
)
# Fields of LiteLLM's Logging object. Its callbacks pass these details on as arguments.
_LOGGED = words_of(
    "optional_params litellm_params additional_args start_time end_time call_type log_event_type original_response "
    "standard_logging_object standard_callback_dynamic_params response_cost cache_hit completion_start_time "
    "api_call_start_time complete_streaming_response async_complete_streaming_response custom_llm_provider model_info "
    "post_api_call llm_api_duration_ms stream_chunks_returned litellm_trace_id applied_guardrails"
)


@cache
def _owned() -> frozenset[str]:
    """Return the arguments that LiteLLM lists as its own, which it never sends."""
    from litellm.types.router import GenericLiteLLMParams
    from litellm.types.utils import all_litellm_params

    return (frozenset(all_litellm_params) | frozenset(GenericLiteLLMParams.model_fields)) - _CARRIERS


@lru_cache(maxsize=4096)
def use_of(family: str, name: str) -> int:
    """Return the use of an argument of a family of calls: READ, FREE, COUNTED, REPEATED or UNKNOWN."""
    if name in _READ.get(family, ()):
        return READ
    if name in _COUNTED.get(family, ()):
        return COUNTED
    if name in _REPEATED:
        return REPEATED
    if name in _FREE_IN.get(family, ()):
        return FREE
    if family != GOOGLE_CONFIG and (name in _FREE or name in _LOGGED or name in _owned()):
        return FREE
    return UNKNOWN


def is_free(name: str) -> bool:
    """Return whether a field of a body costs nothing in any provider's format."""
    return name in _FREE


def count_arguments(family: str, counter: InputCounter, asked: OutputLimit, params: Mapping[str, Any]) -> None:
    """Count every argument that the family's reader has not read. An unknown argument makes the call not bounded."""
    for name, value in params.items():
        use = use_of(family, name)
        if use <= FREE or value is None or (isinstance(value, (Mapping, list, tuple)) and not value):
            continue
        seen = scan({name: value})
        if use == REPEATED:
            seen.text *= counter.messages + 1
        if use >= REPEATED:
            counter.certain = False
        else:
            seen.text, seen.words = max(seen.size - _OPTION, 0), 0
        count_seen(counter, asked, seen)
    if params.get("cache_control") or params.get("cache_control_injection_points"):
        counter.caches = True
    _count_dropped(asked, params.get("additional_drop_params"))


def unknown_arguments(family: str, params: Mapping[str, Any]) -> Scan | None:
    """Return the content of the arguments that this family does not know; None if it knows all of them."""
    found = {name: value for name, value in params.items() if value is not None and use_of(family, name) > COUNTED}
    return scan(found) if found else None


def count_seen(counter: InputCounter, asked: OutputLimit, seen: Scan) -> None:
    """Count what a scan found: its text for each prompt, its media, its limits and its number of answers."""
    counter.add_bytes(seen.size * asked.prompts)
    counter.add_attachments(seen.media)
    counter.caches = counter.caches or seen.caches
    counter.certain = counter.certain and seen.readable
    asked.raise_to(max(seen.limit, seen.thinking), seen.copies)
    asked.unlimited = asked.unlimited or seen.unlimited or seen.nulls


def _count_dropped(asked: OutputLimit, dropped: object) -> None:
    for name in dropped if isinstance(dropped, (list, tuple, set, frozenset)) else ():
        if isinstance(name, str) and any(sense_of(part[:64]) & LIMIT for part in name.split(".")):
            asked.unlimited = True
