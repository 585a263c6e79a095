"""What answers of the vendors tell of their usage, whole ones and streamed ones.

They are read by their attributes alone, so that this needs no vendor's package.
"""

from abc import ABC, abstractmethod
from typing import Any

from zaaz_client.adapters.figures import UsageFigures, anthropic_figures, openai_figures


class Reader(ABC):
    """Reads one answer: whole, or event by event."""

    def __init__(self) -> None:
        self.began = False
        """Something has come."""
        self.complete = False
        """`figures` are the last."""
        self.response_id = ""
        self.model = ""
        """As the vendor names it."""
        self.figures: UsageFigures | None = None
        """What the vendor has told so far."""
        self._said: list[str] = []

    @property
    def text(self) -> str:
        """What the model has said so far."""
        return "".join(self._said)

    @property
    def waits(self) -> bool:
        """The model is done, and its figures come with the next event."""
        return False

    def hides(self, event: Any) -> bool:
        """Whether the event is there for its figures only, which the caller did not ask for."""
        return False

    @abstractmethod
    def answer(self, answer: Any) -> None:
        """Read a whole answer."""

    @abstractmethod
    def event(self, event: Any) -> None:
        """Read an event of a stream."""

    def _identify(self, message: Any) -> None:
        self.began = True
        self.response_id = getattr(message, "id", None) or self.response_id
        self.model = getattr(message, "model", None) or self.model

    def _say(self, *parts: Any) -> None:
        self._said += [part for part in parts if isinstance(part, str)]


class ChoicesReader(Reader):
    """OpenAI's answers with choices: of chat completions and completions; of embeddings too.

    `choices`: how many there are to be. `usage_asked`: the usage is told at the
    stream's end; `usage_hidden`: but the caller did not ask for it.
    """

    def __init__(
        self, choices: int = 1, *, usage_asked: bool = False, usage_hidden: bool = False
    ) -> None:
        super().__init__()
        self._unfinished = set(range(choices))
        self._usage_asked = usage_asked
        self._usage_hidden = usage_hidden

    @property
    def waits(self) -> bool:
        """Whoever stops reading at the last finish_reason has had the usage read all the same."""
        return self._usage_asked and not self._unfinished and self.figures is None

    def hides(self, event: Any) -> bool:
        return self._usage_hidden and not event.choices and _usage(event) is not None

    def answer(self, answer: Any) -> None:
        self._identify(answer)
        self.figures = openai_figures(_usage(answer))
        self.complete = self.figures is not None
        for choice in getattr(answer, "choices", None) or ():
            self._hear(choice, "message")

    def event(self, event: Any) -> None:
        self._identify(event)
        for choice in event.choices or ():
            self._hear(choice, "delta")
            if choice.finish_reason:
                self._unfinished.discard(choice.index)
        self.figures = openai_figures(_usage(event)) or self.figures
        self.complete = self.figures is not None and not self._unfinished

    def _hear(self, choice: Any, part: str) -> None:
        said = getattr(choice, part, None)
        self._say(getattr(choice, "text", None))
        self._say(*(getattr(said, name, None) for name in ("content", "refusal")))
        for call in getattr(said, "tool_calls", None) or ():
            function = getattr(call, "function", None)
            self._say(getattr(function, "name", None), getattr(function, "arguments", None))


class ResponsesReader(Reader):
    """Answers of OpenAI's Responses API."""

    def answer(self, answer: Any) -> None:
        self._identify(answer)
        self.figures = openai_figures(_usage(answer)) or self.figures
        self.complete = self.figures is not None

    def event(self, event: Any) -> None:
        self.began = True
        if (response := getattr(event, "response", None)) is not None:
            self.answer(response)  # of response.created, which has no usage, to .completed
        elif event.type.endswith(".delta"):
            self._say(event.delta)


class MessagesReader(Reader):
    """Answers of Anthropic's Messages API."""

    def answer(self, answer: Any) -> None:
        self._identify(answer)
        self.figures = anthropic_figures(_usage(answer))
        self.complete = self.figures is not None

    def event(self, event: Any) -> None:
        match event.type:
            case "message_start":
                self.answer(event.message)
                self.complete = False
            case "message_delta":
                self.figures = anthropic_figures(_usage(event), self.figures)
                self.complete = event.delta.stop_reason is not None
            case "content_block_delta":
                names = ("text", "partial_json", "thinking")
                self._say(*(getattr(event.delta, name, None) for name in names))


def _usage(message: Any) -> Any:
    return getattr(message, "usage", None)
