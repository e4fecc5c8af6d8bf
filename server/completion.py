"""Completion scripts for bash, zsh and fish, made from the parser itself."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser
from collections.abc import Iterator

Words = dict[str, list[str]]

BASH = """_penstock() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" path="" word words=""
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ " {paths} " == *" $path$word "* ]] && path="$path$word/"
    done
    case "$path" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    [[ ${{#COMPREPLY[@]}} -gt 0 ]] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -F _penstock penstock
"""


def script(parser: ArgumentParser, shell: str) -> str:
    """The script for bash, zsh or fish."""
    words = dict(_words(parser, ""))
    if shell == "fish":
        return "".join(f"{line}\n" for line in _fish(parser))
    paths = " ".join(path.rstrip("/") for path in words if path)
    cases = "\n".join(f'        "{path}") words="{" ".join(of)}" ;;' for path, of in words.items())
    bash = BASH.format(paths=paths, cases=cases)
    if shell == "zsh":
        return "#compdef penstock\nautoload -U +X bashcompinit && bashcompinit\n" + bash
    return bash


def _words(parser: ArgumentParser, path: str) -> Iterator[tuple[str, list[str]]]:
    found: list[str] = []
    below: list[tuple[str, ArgumentParser]] = []
    for action in parser._actions:
        found += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            below += action.choices.items()
        if action.choices and not action.option_strings:
            found += map(str, action.choices)
    yield path, found
    for name, child in below:
        yield from _words(child, f"{path}{name}/")


def _fish(parser: ArgumentParser) -> Iterator[str]:
    words = dict(_words(parser, ""))
    top = [word for word in words[""] if not word.startswith("-")]
    yield f'complete -c penstock -f -n __fish_use_subcommand -a "{" ".join(top)}"'
    for path, all in words.items():
        command = path.rstrip("/").rpartition("/")[2]
        if not command:
            continue
        seen = f'-n "__fish_seen_subcommand_from {command}"'
        for word in all:
            if word.startswith("--"):
                yield f"complete -c penstock {seen} -l {word[2:]}"
            elif not word.startswith("-"):
                yield f"complete -c penstock {seen} -f -a {word}"
