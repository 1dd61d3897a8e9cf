"""The ClientApp: wiring only."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app import round
from fedsense_core.protocol.messages import TrainTask, handshake_attachments, handshake_run_ids

app = ClientApp()


@app.query("handshake")
def handshake(message: Message, context: Context) -> Message:
    """Answer who this client is and what it has."""
    said = round.handshake(context, handshake_run_ids(message), handshake_attachments(message))
    return Message(said.to_records(), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with this round's update or the reason why there is none."""
    return Message(round.train(context, TrainTask.from_records(message.content)).to_records(), reply_to=message)
