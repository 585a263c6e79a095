"""Answers as OpenAI and Anthropic send them, cut down to what has a meaning here."""

from typing import Any

from tests.client.adapters.vendor import DONE, Body, Events, Whole, data, named

SAID = ("For", "ty", "-two", ".")
"""What every model answers."""
TOOL = {"name": "add", "arguments": '{"a": 40, "b": 2}'}


def chat_usage(prompt: int = 1_000, completion: int = 500, cached: int = 0) -> Body:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def chat(answer_id: str, usage: Body | None = None, **message: Any) -> Whole:
    said = {"role": "assistant", "content": "".join(SAID), "refusal": None, **message}
    choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": "stop"}
    body = {
        "id": answer_id,
        "object": "chat.completion",
        "created": 1_800_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [choice],
        "usage": usage or chat_usage(),
    }
    return Whole(body)


def chat_chunk(answer_id: str, **fields: Any) -> str:
    return data(
        {
            "id": answer_id,
            "object": "chat.completion.chunk",
            "created": 1_800_000_000,
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [],
            "usage": None,
            **fields,
        }
    )


def choice(delta: Body, finish_reason: str | None = None, index: int = 0) -> list[Body]:
    return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


def chat_frames(answer_id: str, usage: Body | None = None) -> list[str]:
    """With the usage, as when it was asked for: at index -2."""
    return [
        chat_chunk(answer_id, choices=choice({"role": "assistant", "content": ""})),
        *(chat_chunk(answer_id, choices=choice({"content": word})) for word in SAID),
        chat_chunk(answer_id, choices=choice({}, "stop")),
        chat_chunk(answer_id, usage=usage or chat_usage()),
        DONE,
    ]


def completion_frames(answer_id: str) -> list[str]:
    """Of the old completions, as chat_frames: "ty" is the second."""
    body: Body = {"id": answer_id, "object": "text_completion", "created": 1_800_000_000}
    body |= {"model": "gpt-4o-mini-2024-07-18", "choices": [], "usage": None}
    return [
        *(data({**body, "choices": [_piece(word, None)]}) for word in SAID),
        data({**body, "choices": [_piece("", "stop")]}),
        data({**body, "usage": chat_usage()}),
        DONE,
    ]


def _piece(text: str, finish_reason: str | None) -> Body:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


def tool_frames(answer_id: str) -> list[str]:
    call = {"index": 0, "id": "call_1", "type": "function"}
    name, arguments = TOOL["name"], TOOL["arguments"]
    deltas: list[Body] = [
        {"role": "assistant", "content": None},
        {"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": arguments}}]},
    ]
    return [
        *(chat_chunk(answer_id, choices=choice(delta)) for delta in deltas),
        chat_chunk(answer_id, choices=choice({}, "tool_calls")),
        chat_chunk(answer_id, usage=chat_usage()),
        DONE,
    ]


def response_body(answer_id: str, status: str, usage: Body | None) -> Body:
    content = {"type": "output_text", "text": "".join(SAID), "annotations": []}
    item = {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [content],
    }
    return {
        "id": answer_id,
        "object": "response",
        "created_at": 1_800_000_000,
        "status": status,
        "model": "gpt-4o-mini-2024-07-18",
        "output": [item] if status == "completed" else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }


def response_usage(asked: int = 1_000, said: int = 500, cached: int = 0, written: int = 0) -> Body:
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": asked + said,
    }


def response(answer_id: str, usage: Body | None = None) -> Whole:
    return Whole(response_body(answer_id, "completed", usage or response_usage()))


def response_frames(answer_id: str) -> list[str]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    item = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant"}
    part = {"type": "output_text", "text": "", "annotations": []}
    texts: list[Body] = [
        {"type": "response.output_text.delta", "delta": word, "logprobs": [], **place}
        for word in SAID
    ]
    begun = response_body(answer_id, "in_progress", None)
    done = response_body(answer_id, "completed", response_usage())
    events: list[Body] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", "part": part, **place},
        *texts,
        {"type": "response.completed", "response": done},
    ]
    return [named({**event, "sequence_number": n}) for n, event in enumerate(events)]


def embedding() -> Whole:
    return Whole(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}],
            "model": "text-embedding-3-small",
            "usage": {"prompt_tokens": 1_000, "total_tokens": 1_000},
        }
    )


def failure(status: int) -> Whole:
    """As OpenAI says it; tried again at once."""
    body = {"error": {"message": "not now", "type": "server_error", "code": None}}
    return Whole(body, status, {"retry-after-ms": "1"})


def message_usage(asked: int = 1_000, said: int = 500, read: int = 0, written: int = 0) -> Body:
    return {
        "input_tokens": asked,
        "output_tokens": said,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "service_tier": "standard",
    }


def message(answer_id: str, usage: Body | None = None, **fields: Any) -> Whole:
    return Whole(
        {
            "id": answer_id,
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-5-5",
            "content": [{"type": "text", "text": "".join(SAID)}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage or message_usage(),
            **fields,
        }
    )


def message_frames(answer_id: str, read: int = 0, written: int = 0) -> list[str]:
    """The last but one has the usage to the end."""
    usage = message_usage(1_000, 1, read, written)
    begun = message(answer_id, usage, content=[], stop_reason=None).body
    block = {"type": "text", "text": ""}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        named({"type": "message_start", "message": begun}),
        named({"type": "content_block_start", "index": 0, "content_block": block}),
        named({"type": "ping"}),
        *(_text(word) for word in SAID),
        named({"type": "content_block_stop", "index": 0}),
        named({"type": "message_delta", "delta": ended, "usage": {"output_tokens": 500}}),
        named({"type": "message_stop"}),
    ]


def _text(word: str) -> str:
    delta = {"type": "text_delta", "text": word}
    return named({"type": "content_block_delta", "index": 0, "delta": delta})


def tool_use_frames(answer_id: str) -> list[str]:
    begun = message(answer_id, message_usage(1_000, 1), content=[], stop_reason=None).body
    block = {"type": "tool_use", "id": "toolu_1", "name": TOOL["name"], "input": {}}
    delta = {"type": "input_json_delta", "partial_json": TOOL["arguments"]}
    ended = {"stop_reason": "tool_use", "stop_sequence": None}
    return [
        named({"type": "message_start", "message": begun}),
        named({"type": "content_block_start", "index": 0, "content_block": block}),
        named({"type": "content_block_delta", "index": 0, "delta": delta}),
        named({"type": "content_block_stop", "index": 0}),
        named({"type": "message_delta", "delta": ended, "usage": {"output_tokens": 500}}),
        named({"type": "message_stop"}),
    ]


OVERLOADED: Body = {
    "type": "error",
    "error": {"type": "overloaded_error", "message": "Overloaded"},
}


def overloaded() -> Whole:
    """As Anthropic says it."""
    return Whole(OVERLOADED, 529, {"retry-after-ms": "1"})


def error_frame() -> str:
    """The same in the middle of a stream."""
    return named(OVERLOADED)


def hanging(frames: list[str]) -> Events:
    return Events(frames, hangs=True)


def cut(frames: list[str]) -> Events:
    return Events(frames, cut=True)
