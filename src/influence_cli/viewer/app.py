"""The viewer as an application: themes, the screens it opens, and what all of them share."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen

from influence_cli.errors import InfluenceError
from influence_cli.store.saved_views import config_folder
from influence_cli.viewer.cells import shown
from influence_cli.viewer.run_list import RunList
from influence_cli.viewer.source import RunSource
from influence_cli.viewer.themes import DARK, DEFAULTS, THEMES

if TYPE_CHECKING:
    from influence_cli.environments.environment import Environment
    from influence_cli.schemas.rubrics import Rubric
    from influence_cli.viewer.screens.run import RunScreen
    from influence_cli.viewer.screens.sweep import SweepOf

EnvironmentsOf = Callable[[Path], "Mapping[str, Environment]"]
"""Returns the environments that the run in a path was made with, by name, as they are now; raises InfluenceError."""

RubricsOf = Callable[[], "Sequence[Rubric]"]
"""Returns what can be labelled by."""


def _no_environments(_path: Path) -> dict[str, Environment]:
    raise InfluenceError("No environment can be loaded here.")


def _no_rubrics() -> Sequence[Rubric]:
    return ()


_SETTLED_AFTER = 1.0
_COLLECT_AFTER = 20_000


def _settle() -> None:
    """Leave what start-up made out of garbage collection: looking at all of it again took 60 ms while scrolling."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)


@dataclass(frozen=True)
class ViewerOptions:
    """What a viewer is started with."""

    folders: tuple[Path, ...] = ()
    paths: tuple[Path, ...] = ()
    open: Path | None = None
    compare: tuple[Path, Path] | None = None
    sweep: SweepOf | None = None
    conversation: int | None = None
    query: str = ""
    theme: str = DARK
    author: str = "me"
    blind: bool = False
    environments_of: EnvironmentsOf = _no_environments
    rubrics: RubricsOf = _no_rubrics
    settings: Path = field(default_factory=config_folder)


class ViewerApp(App[None]):
    """Looks at runs."""

    TITLE = "influence"
    CSS = """
    * {
        scrollbar-color: $panel; scrollbar-color-hover: $primary; scrollbar-color-active: $primary;
        scrollbar-background: $background; scrollbar-background-hover: $background;
        scrollbar-background-active: $background; scrollbar-corner-color: $background;
    }
    """
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+p", "command_palette", "Commands", show=False),
        Binding("f2", "next_theme", "Next theme", show=False),
        Binding("ctrl+q", "quit", "Quit", show=False),
    ]

    def __init__(self, options: ViewerOptions) -> None:
        super().__init__()
        self.options = options
        self.author = options.author
        self.blind = options.blind
        self._sources: dict[Path, RunSource] = {}
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = options.theme

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return our variables for themes that do not define them."""
        return DEFAULTS

    def on_mount(self) -> None:
        """Open what was asked for."""
        from influence_cli.viewer.screens.runs import RunsScreen

        self.set_timer(_SETTLED_AFTER, _settle)
        options = self.options
        if options.sweep is not None:
            from influence_cli.viewer.screens.sweep import SweepScreen

            self.push_screen(SweepScreen(options.sweep))
        elif options.compare is not None:
            self.compare(*options.compare)
        elif options.open is not None:
            self.open_run(options.open, query=options.query, conversation=options.conversation)
        else:
            self.push_screen(RunsScreen(RunList(options.folders, options.paths)))

    # -- screens ------------------------------------------------------------------------------------------------------

    def source(self, path: Path) -> RunSource:
        """Return the run in ``path``, opened once; InfluenceError if it cannot be."""
        key = path.resolve()
        if key not in self._sources:
            self._sources[key] = RunSource(path)
        return self._sources[key]

    def open_run(self, path: Path, *, query: str = "", conversation: int | None = None) -> None:
        """Open a run's screen, and one of its conversations if asked for."""
        from influence_cli.viewer.screens.run import RunScreen

        try:
            source = self.source(path)
        except InfluenceError as error:
            self.notify(shown(str(error)), severity="error", markup=False)
            return
        self.push_screen(RunScreen(source, query=query, conversation=conversation))

    def show_conversation(self, run: RunScreen, number: int) -> None:
        """Open one of the conversations that ``run`` shows."""
        from influence_cli.viewer.screens.conversation import ConversationScreen

        self.push_screen(ConversationScreen(run.source, run.numbers, number, run.query_words()))

    def compare(self, left: Path, right: Path) -> None:
        """Open the comparison of two runs, or of the iterations of one."""
        from influence_cli.viewer.screens.compare import CompareScreen

        try:
            self.push_screen(CompareScreen(self.source(left), self.source(right)))
        except InfluenceError as error:
            self.notify(shown(str(error)), severity="error", markup=False)

    def ask(self, question: str, act: Callable[[], None]) -> None:
        """Ask before something is done."""
        from influence_cli.viewer.screens.question import QuestionScreen

        def answered(yes: bool | None) -> None:
            if yes:
                act()

        self.push_screen(QuestionScreen(question), answered)

    def go_back(self) -> None:
        """Close the screen in front; end after the last."""
        if len(self.screen_stack) > 2:
            self.pop_screen()
        else:
            self.exit()

    # -- commands -----------------------------------------------------------------------------------------------------

    def action_next_theme(self) -> None:
        """Change to the next of our themes."""
        names = [theme.name for theme in THEMES]
        here = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(here + 1) % len(names)]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield what the command palette offers: every key of the screen in front, and themes."""
        seen = set()
        for binding in screen.active_bindings.values():
            told = binding.binding.description
            if told and told not in seen and binding.enabled:
                seen.add(told)
                yield SystemCommand(told, f"Key: {self.get_key_display(binding.binding)}", self._runner(binding))
        for theme in THEMES:
            yield SystemCommand(f"Theme: {theme.name}", "Change colours", lambda name=theme.name: self._set_theme(name))

    def _runner(self, binding: object) -> Callable[[], object]:
        async def run() -> None:
            await self.run_action(binding.binding.action, binding.node)  # type: ignore[attr-defined]

        return run

    def _set_theme(self, name: str) -> None:
        self.theme = name

    def copy_text(self, text: str) -> None:
        """Put text on the clipboard, made harmless first."""
        self.copy_to_clipboard(shown(text))

    def on_unmount(self) -> None:
        """Close every run."""
        for source in self._sources.values():
            source.close()
