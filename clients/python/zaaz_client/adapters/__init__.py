"""Bill what language models use: adapters for the clients of OpenAI, Anthropic and LiteLLM.

    async with metered(AsyncOpenAI(), StreamBilling(stream, user_id)) as openai:
        answer = await openai.chat.completions.create(model="gpt-4o-mini", messages=messages)

`metered` is in `adapters.openai`, `adapters.anthropic` and `adapters.litellm`, each of which
needs its vendor's package; what is here needs none.
"""

from zaaz_client.adapters.billing import Billing, ProcessBilling, StreamBilling, key_of_response
from zaaz_client.adapters.figures import (
    FinishedCall,
    UnknownUsage,
    UnknownUsageHandler,
    UsageFigures,
    count_with,
)

__all__ = [
    "Billing",
    "FinishedCall",
    "ProcessBilling",
    "StreamBilling",
    "UnknownUsage",
    "UnknownUsageHandler",
    "UsageFigures",
    "count_with",
    "key_of_response",
]
