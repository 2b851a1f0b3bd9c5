"""Models as folders, here or on the Hugging Face hub: `from_pretrained`, `save_pretrained`, `push_to_hub`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from dreamdojo.errors import CheckpointError
from dreamdojo.training.checkpoint import load_model, read_about, save_model

Model = TypeVar("Model", bound="Pretrained")

_FILES = ["config.json", "model.safetensors", "README.md"]


class Pretrained(nn.Module):
    """A model that is one folder: `config.json`, `model.safetensors` and a card."""

    about: Mapping[str, Any] = {}
    """What its folder keeps beside the weights, such as how to sample."""

    @classmethod
    def from_pretrained(
        cls: type[Model],
        folder_or_repo_id: str | Path,
        *,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Model:
        """Load the model from a folder, or from a repository of the hub, which is downloaded once.

        Args:
            folder_or_repo_id: a folder, or `owner/name`; a folder of that name goes first.
            dtype: precision of the weights; None keeps the stored one, and maps the file instead of copying it.
            revision: branch, tag or commit of the repository.
            cache_dir: where downloads are kept; the hub's own cache by default.
            local_files_only: take the repository from the cache, without a network.
            token: access token of the hub.

        Raises:
            CheckpointError: if there is no such model, or the folder is not a whole checkpoint of this class.
        """
        folder = Path(folder_or_repo_id)
        if isinstance(folder_or_repo_id, str) and not folder.exists():
            folder = download(
                folder_or_repo_id,
                _FILES,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                token=token,
            )
        model = load_model(folder, cls, dtype=dtype)
        model.about = read_about(folder)
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model to a folder; a card that is there already stays."""
        folder = Path(folder)
        save_model(folder, self, about=self.about)
        card = folder / "README.md"
        if not card.exists():
            count = sum(parameter.numel() for parameter in self.parameters())
            text = (f"{count:,} parameters.", f"```python\n{how_to_load(type(self))}\n```")
            card.write_text(model_card(type(self), text), encoding="utf-8")

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model",
        create_pr: bool = False,
        token: str | bool | None = None,
    ) -> str:
        """Upload the model to a repository of the hub, which is made if there is none; returns the commit's address."""
        import huggingface_hub

        api = huggingface_hub.HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
                create_pr=create_pr,
            )
        return str(commit)


def how_to_load(model_class: type[nn.Module]) -> str:
    """Python that loads a model of that class."""
    name = model_class.__name__
    return f'from {model_class.__module__} import {name}\n\nmodel = {name}.from_pretrained("FOLDER OR OWNER/NAME")'


def model_card(model_class: type[nn.Module], text: Sequence[str], *, licence: str | None = None) -> str:
    """A model card as the hub reads it: a header of settings, then paragraphs."""
    header = ["library_name: dreamdojo", "tags: [robotics, world-model, dreamdojo]"]
    header += [f"license: {licence}"] if licence else []
    settings = "\n".join(["---", *header, "---"])
    return "\n\n".join([settings, f"# DreamDojo `{model_class.__name__}`", *text]) + "\n"


def download(
    repo_id: str,
    files: Sequence[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The folder of those `files` that a repository of the hub has, downloaded once.

    Raises:
        CheckpointError: if there is no such repository, or no network.
    """
    import huggingface_hub

    try:
        found = huggingface_hub.snapshot_download(
            repo_id,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=list(files),
        )
    except (OSError, ValueError) as error:  # not found, not allowed, no network, no such name
        raise CheckpointError(
            f"{repo_id!r}: expected a folder or a repository OWNER/NAME of the Hugging Face hub, found neither "
            f"({str(error).partition(chr(10))[0]}). Check the name, the token and the network."
        ) from error
    return Path(found)
