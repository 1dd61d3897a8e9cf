"""The ClientApp: wiring only."""

from __future__ import annotations

from dataclasses import replace

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app import round
from client_app.journal import Journal
from fedsense_core.errors import FedSenseError
from fedsense_core.protocol.messages import (
    TrainReply,
    TrainTask,
    handshake_attachments,
    handshake_nonce,
    handshake_run_ids,
)

app = ClientApp()


@app.query("handshake")
def handshake(message: Message, context: Context) -> Message:
    """Answer who this client is and what it has."""
    run_ids, asked = handshake_run_ids(message), handshake_attachments(message)
    said = Journal.of(context, run_ids[0]).greeted(asked, lambda: round.handshake(context, run_ids, asked))
    return Message(replace(said, nonce=handshake_nonce(message)).to_records(), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with this round's update or the reason why there is none."""
    try:
        task = TrainTask.from_records(message.content)
    except (FedSenseError, KeyError, TypeError, ValueError) as error:
        return Message(TrainReply("?", "refused", f"this is no task: {error}").to_records(), reply_to=message)
    reply = Journal.of(context, task.run_id).trained(task, lambda: round.train(context, task))
    return Message(replace(reply, nonce=task.nonce).to_records(), reply_to=message)
