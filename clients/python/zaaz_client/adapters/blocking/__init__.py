"""The adapters for synchronous code: the same names, for clients that wait, and no event loop.

    with metered(OpenAI(), StreamBilling(stream, user_id)) as openai:
        answer = openai.chat.completions.create(model="gpt-4o-mini", messages=messages)

`metered` is in `blocking.openai`, `blocking.anthropic` and `blocking.litellm`; `stream` is of a
BlockingZaazClient. What a call has used is billed in the thread that makes it.
"""

from zaaz_client.adapters.blocking.billing import Billing, ProcessBilling, StreamBilling

__all__ = ["Billing", "ProcessBilling", "StreamBilling"]
