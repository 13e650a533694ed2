"""One conversation: what was said, what the models thought of it, and what each of them was asked."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer

from influence_cli.errors import InfluenceError
from influence_cli.schemas.messages import Role
from influence_cli.store.conversation import StoredConversation, fingerprint, read_conversation
from influence_cli.store.labels import LabelRecord, write_label
from influence_cli.viewer.chat import Chat, ChatOptions, lay_out
from influence_cli.viewer.events import ConversationRead, PromptRendered, TroubleMet
from influence_cli.viewer.exporting import save_transcript, transcript_text
from influence_cli.viewer.screens.listing import ViewerScreen
from influence_cli.viewer.source import RunSource
from influence_cli.viewer.widgets.label_bar import LabelBar
from influence_cli.viewer.widgets.lines import Lines, LinesView
from influence_cli.viewer.widgets.title_bar import TitleBar
from influence_cli.viewer.workers import run_beside

if TYPE_CHECKING:
    from influence_cli.store.trajectory_table import TrajectoryTable
    from influence_cli.viewer.prompts import Prompt

_LIVE_SECONDS = 0.7


class ConversationScreen(ViewerScreen):
    """A conversation among those that the run's screen shows."""

    HELP_TITLE = "Conversation"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,right_square_bracket", "other(1)", "Next", show=True, key_display="n"),
        Binding("p,left_square_bracket", "other(-1)", "Previous", show=True, key_display="p"),
        Binding("w", "extreme(False)", "Worst turn", show=True),
        Binding("b", "extreme(True)", "Best turn", show=True),
        Binding("t,right,l", "turn(1)", "Next turn", show=False),
        Binding("T,left,h", "turn(-1)", "Previous turn", show=False),
        Binding("z", "fold", "Unfold tools", show=True),
        Binding("L", "label", "Label", show=True),
        Binding("B", "blind", "Hide or show the models' scores", show=False),
        Binding("A", "prompt('agent')", "Prompt of the agent", show=False),
        Binding("U", "prompt('user')", "Prompt of the user", show=False),
        Binding("R", "prompt('preference')", "Prompt of the rating", show=False),
        Binding("V", "prompt('veto')", "Prompt of the veto", show=False),
        Binding("X", "prompt('transition')", "Prompt of the transition", show=False),
        Binding("J", "judges", "Prompts of the scores", show=False),
        Binding("o", "whole", "The whole reply", show=False),
        Binding("y", "copy(False)", "Copy the reply", show=False),
        Binding("Y", "copy(True)", "Copy the conversation", show=False),
        Binding("e", "export", "Export", show=False),
    ]

    def __init__(self, source: RunSource, numbers: array[int], number: int, words: Sequence[str] = ()) -> None:
        super().__init__()
        self.source = source
        self.numbers = numbers
        self.number = number
        self.conversation: StoredConversation | None = None
        self.turn = 0
        self.unfolded = False
        self.words = tuple(words)
        self.chat = Chat()
        self._print: tuple[int, ...] = ()

    def compose(self) -> ComposeResult:
        """Return title, chat, labels and keys."""
        yield TitleBar()
        yield LinesView(id="chat")
        yield LabelBar(self.viewer.options.rubrics())
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        """Read the conversation, and look whether it grows."""
        self.query_one(LinesView).focus()
        self._open(self.number)
        self.set_interval(_LIVE_SECONDS, self._look)

    # -- workers ------------------------------------------------------------------------------------------------------

    def _open(self, number: int) -> None:
        self.number = number
        self.turn = 0
        run_beside(self, self._read, number, grown=False, group="read", exclusive=True)

    def _look(self) -> None:
        if self.is_current:
            run_beside(self, self._read, self.number, grown=True, group="look", exclusive=True)

    async def _read(self, number: int, *, grown: bool) -> None:
        try:
            found = await self.source.quick.ask(lambda table: fingerprint(table.run, number))
            if grown and found == self._print:
                return
            self._print = found
            conversation = await self.source.quick.ask(lambda table: read_conversation(table.run, number))
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        else:
            self.post_message(ConversationRead(conversation, grown))

    # -- handlers -----------------------------------------------------------------------------------------------------

    def on_conversation_read(self, message: ConversationRead) -> None:
        """Show it; one that grows stays where it is, or follows if its end was in sight."""
        if message.conversation.episode_id != self.number:
            return
        view = self.query_one(LinesView)
        at_end = view.scroll_offset.y + view.size.height >= len(view.lines) - 1
        self.conversation = message.conversation
        turns = message.conversation.reply_turns()
        if not self.turn and turns:
            self.turn = turns[0]
        self._show(keep=message.grown)
        if message.grown and at_end and message.conversation.status == "running":
            view.action_bottom()
        self.query_one(LabelBar).open_on(message.conversation, self.turn, self.viewer.author)

    def _show(self, *, keep: bool) -> None:
        conversation = self.conversation
        if conversation is None:
            return
        bar = self.query_one(TitleBar)
        place = f" \u2022 {self._position() + 1:,} of {len(self.numbers):,}" if self._position() >= 0 else ""
        bar.text = f"#{conversation.episode_id} {conversation.title}{place}"
        bar.note = "blind" if self.viewer.blind else (conversation.record.population or "")
        bar.state = "running" if conversation.status == "running" else ""
        self.query_one(LinesView).show(self._lines, keep=keep)

    def _lines(self, cells: int) -> Lines:
        assert self.conversation is not None
        options = ChatOptions(self.turn, self.viewer.blind, self.unfolded, self.words)
        self.chat = lay_out(self.conversation, cells, options)
        return self.chat.lines

    def on_label_bar_given(self, message: LabelBar.Given) -> None:
        """Store a label."""
        run_beside(self, self._store, message.label, group="label")

    async def _store(self, label: LabelRecord) -> None:
        try:
            await self.source.slow.ask(lambda _table: write_label(self.source.directory, label))
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        await self._read(self.number, grown=True)

    def on_label_bar_next_wanted(self, _message: LabelBar.NextWanted) -> None:
        """Go on to the next conversation."""
        self.action_other(1)

    def on_label_bar_closed(self, _message: LabelBar.Closed) -> None:
        """Go back to reading."""
        self.query_one(LinesView).focus()

    # -- what keys do -------------------------------------------------------------------------------------------------

    def _position(self) -> int:
        try:
            return self.numbers.index(self.number)
        except ValueError:
            return -1

    def action_other(self, by: int) -> None:
        """Go to the next or previous conversation of the table."""
        place = self._position() + by
        if 0 <= place < len(self.numbers):
            self._open(self.numbers[place])
        else:
            self.tell("That is the last one." if by > 0 else "That is the first one.")

    def action_turn(self, by: int) -> None:
        """Go to the next or previous reply."""
        turns = self.conversation.reply_turns() if self.conversation else []
        if turns:
            place = turns.index(self.turn) + by if self.turn in turns else 0
            self._go_to(turns[max(0, min(place, len(turns) - 1))])

    def action_extreme(self, best: bool) -> None:
        """Go to the worst or best reply: by veto, and by rating where there is none."""
        found = extreme_turn(self.conversation, best=best) if self.conversation else None
        if self.viewer.blind:
            self.tell("The models' scores are hidden (B shows them).")
        elif found is None:
            self.tell("No reply has been judged.")
        else:
            self._go_to(found)

    def _go_to(self, turn: int) -> None:
        self.turn = turn
        self._show(keep=True)
        self.query_one(LinesView).scroll_to(y=self.chat.anchors.get(turn, 0), animate=False, force=True)
        if self.conversation is not None:
            self.query_one(LabelBar).open_on(self.conversation, turn, self.viewer.author)

    def action_fold(self) -> None:
        """Fold or unfold what tools were asked and answered."""
        self.unfolded = not self.unfolded
        self._show(keep=True)

    def action_blind(self) -> None:
        """Hide or show what models said."""
        self.viewer.blind = not self.viewer.blind
        self._show(keep=True)

    def action_label(self) -> None:
        """Label this conversation with the keyboard."""
        if self.conversation is not None:
            self.query_one(LabelBar).begin(self.conversation, self.turn, self.viewer.author)

    def action_prompt(self, role: Role) -> None:
        """Show exactly what a role was asked for this turn."""
        conversation, turn, environments_of = self.conversation, self.turn, self.viewer.options.environments_of

        def rendered(table: TrajectoryTable) -> Prompt:
            from influence_cli.viewer.prompts import prompt_of

            assert conversation is not None
            return prompt_of(conversation, role, turn, table.run.directory, environments_of)

        if conversation is not None:
            run_beside(self, self._ask_for_prompt, rendered, group="prompt", exclusive=True)

    def action_judges(self) -> None:
        """Show exactly what was asked for the scores of this turn and of the conversation."""
        conversation, turn, options = self.conversation, self.turn, self.viewer.options

        def rendered(table: TrajectoryTable) -> Prompt:
            from influence_cli.scoring.rubric_files import shipped_rubrics
            from influence_cli.viewer.prompts import prompt_of_scores

            assert conversation is not None
            rubrics = [*options.rubrics(), *shipped_rubrics().values()]
            trajectory = table.run.trajectory(conversation.episode_id)
            where = (table.run.directory, options.environments_of)
            return prompt_of_scores(conversation, trajectory, turn, *where, rubrics)

        if conversation is not None:
            run_beside(self, self._ask_for_prompt, rendered, group="prompt", exclusive=True)

    async def _ask_for_prompt(self, rendered: Callable[[TrajectoryTable], Prompt]) -> None:
        try:
            prompt = await self.source.quick.ask(rendered)
        except InfluenceError as error:
            self.post_message(TroubleMet(str(error)))
        else:
            self.post_message(PromptRendered(prompt))

    def on_prompt_rendered(self, message: PromptRendered) -> None:
        """Show it."""
        from influence_cli.viewer.screens.pager import PagerScreen

        told = message.prompt
        self.app.push_screen(PagerScreen(told.title, told.blocks, told.note))

    def action_whole(self) -> None:
        """Show the whole reply, however long."""
        from influence_cli.viewer.screens.pager import PagerScreen

        if self.conversation is not None:
            blocks = [(m.speaker, m.text) for m in self.conversation.messages if m.turn == self.turn]
            self.app.push_screen(PagerScreen(f"Turn {self.turn}, whole", blocks, ""))

    def action_copy(self, whole: bool) -> None:
        """Copy the reply, or the conversation, made harmless."""
        if self.conversation is None:
            return
        if whole:
            text = transcript_text(self.conversation, blind=self.viewer.blind)
        else:
            messages = self.conversation.messages
            text = "\n\n".join(m.text for m in messages if m.turn == self.turn and m.speaker == "agent")
        self.viewer.copy_text(text)
        self.tell(f"{len(text):,} characters copied.")

    def action_export(self) -> None:
        """Write the conversation to the run's directory as Markdown."""
        if self.conversation is not None:
            try:
                path = save_transcript(self.conversation, self.source.directory, blind=self.viewer.blind)
            except InfluenceError as error:
                self.tell(str(error), severe=True)
            else:
                self.tell(f"Written to {path}.")


def extreme_turn(conversation: StoredConversation, *, best: bool) -> int | None:
    """Return the reply with the highest (or, ``best``, lowest) veto, ties broken by the lowest (highest) rating."""
    judged: list[tuple[float, float, int]] = []
    for turn in conversation.reply_turns():
        veto, rating = conversation.judged(turn, "veto"), conversation.judged(turn, "preference")
        harm = veto.expected if veto is not None and veto.usable else None
        liked = rating.expected if rating is not None and rating.usable else None
        if harm is not None or liked is not None:
            judged.append((harm or 0.0, -(liked or 0.0), turn))
    if not judged:
        return None
    return (min if best else max)(judged)[2]
