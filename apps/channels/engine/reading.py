"""An event as it is kept, and what the agent is asked by it."""

from dataclasses import replace
from typing import Any

from apps.channels.ports import Update

#: What is read of all the files of a message together. Units: characters.
MOST_ATTACHED = 150_000
#: Whose words are replied to.
WHOSE = {"us": "your message", "sender": "their own message", "other": "a message"}


def storable(update: Update) -> Update:
    """Return the event without what no store keeps: NUL and half characters."""
    envelope = update.envelope
    files = tuple(
        replace(
            each,
            name=plain(each.name),
            mimetype=plain(each.mimetype),
            text=plain(each.text),
        )
        for each in envelope.attachments
    )
    metadata = {
        name: plain(said) if isinstance(said, str) else said
        for name, said in envelope.metadata.items()
    }
    envelope = replace(
        envelope,
        message_text=plain(envelope.message_text),
        attachments=files,
        metadata=metadata,
    )
    return replace(update, envelope=envelope, display=_name(update.display))


def plain(text: str) -> str:
    """A text without what no store keeps."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def plain_all(value: Any) -> Any:
    """The same of every text in a parsed body, which is not deep."""
    if isinstance(value, dict):
        return {plain(name): plain_all(said) for name, said in value.items()}
    if isinstance(value, list):
        return [plain_all(each) for each in value]
    return plain(value) if isinstance(value, str) else value


def _name(text: str) -> str:
    """A name without what is not seen, such as marks that turn its letters round."""
    return "".join(each for each in plain(text) if each.isprintable())


def text_of(update: Update) -> str:
    """What the agent is asked, with what could be read of the attachments."""
    text = update.envelope.message_text.strip()
    parts = [f"(Corrected message) {text}" if update.kind == "edit" else text]
    quoted = str(update.envelope.metadata.get("replyText", "")).strip()
    if quoted:
        whose = WHOSE.get(update.envelope.metadata.get("replyFrom", ""), WHOSE["other"])
        parts.append(f"[In reply to {whose}]\n{quoted}")
    room = MOST_ATTACHED
    for each in update.envelope.attachments:
        name = f"{each.kind} {each.name}".strip()
        size = f", {each.size} bytes" if each.size else ""
        said = each.text or f"({each.problem or 'its content was not read'})"
        if len(said) > room:
            left_out = len(said) - room
            said = f"{said[:room]}\n({left_out} characters more were left out)"
        room = max(0, room - len(said))
        parts.append(f"[Attached {name}{size}]\n{said}")
    return "\n\n".join(part for part in parts if part) or "(empty message)"
