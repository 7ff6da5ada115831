"""What a file of `nfi synthesise` says: the split, the transforms, the autoencoder's options."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from nfi_pyro.commands.settings import SplitSettings, read_toml, validated
from nfi_pyro.data.training.transform_chain import DEFAULT_STEPS, check_steps
from nfi_pyro.errors import SpecError
from nfi_pyro.exposures.pca import MODES, Mode
from nfi_pyro.exposures.store import check_method
from nfi_pyro.exposures.vae import VAESpec
from nfi_pyro.exposures.vae_fit import VAETraining
from nfi_pyro.svi.config import SVIConfig

AUTO = "auto"


class SynthesisOptions(BaseModel):
    """The table ``[synthesise]``.

    Attributes
    ----------
    factors : int, "auto" or None
        None is "auto": the number by evidence on the validation span.
    mode : {"pooled", "expanding", "per_date"} or None
        Of pca; None is pooled.
    transforms : tuple or None
        Of features, as in ``[svi]`` of `nfi fit`; None is robust_zscore.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    factors: int | Literal["auto"] | None = None
    mode: Mode | None = None
    transforms: tuple[str | dict[str, Any], ...] | None = None

    @field_validator("transforms")
    @classmethod
    def _known_steps(cls, steps: Any) -> Any:
        """Refuse steps that no transform goes by."""
        return steps if steps is None or check_steps(steps) is not None else None


@dataclass(frozen=True)
class SynthesisSettings:
    """Everything that `synthesise` needs but the panel and the seed."""

    method: str
    factors: int | None  # None is by evidence
    mode: Mode = "pooled"
    transforms: tuple[str | dict[str, Any], ...] = DEFAULT_STEPS
    split: SplitSettings = field(default_factory=SplitSettings)
    vae: VAESpec = field(default_factory=VAESpec)
    training: VAETraining = field(default_factory=VAETraining)

    def options(self) -> dict[str, Any]:
        """Return what shapes this method, as JSON values."""
        plain: dict[str, Any] = {
            "factors": self.factors or AUTO,
            "transforms": list(self.transforms),
        }
        if self.method == "pca":
            return plain | {"mode": self.mode}
        if self.method == "vae":
            vae = self.vae.model_dump(mode="json", exclude={"n_features", "n_factors"})
            return plain | {"vae": vae, "training": self.training.model_dump(mode="json")}
        return plain


_OWN = ("synthesise", "vae", "training", "split")
_OF_FIT = ("model", "spec", "svi")  # of these only svi.transforms counts
_SIZES = {"n_features", "n_factors"}


def synthesis_settings(
    method: str, *, spec: str | Path | None, factors: int | str | None, mode: str | None
) -> SynthesisSettings:
    """Return checked settings: what is given here, else what the file says, else the defaults.

    Parameters
    ----------
    method : {"pca", "ppca", "vae"}
    spec : path, optional
        TOML with the tables ``[synthesise]``, ``[vae]`` (`VAESpec` less its sizes),
        ``[training]`` (`VAETraining`) and ``[split]``; or a file of `nfi fit`, of which
        ``[split]`` and the transforms of ``[svi]`` count.
    factors, mode
        As in `SynthesisOptions`.

    Raises
    ------
    SpecError
        If the file is missing or does not parse, a key is unknown or out of range, or an option
        does not go with the method.
    """
    check_method(method)
    content: dict[str, Any] = {}
    where = "the options"
    if spec is not None:
        where = str(spec)
        content = read_toml(spec, "--spec must be a TOML file")
    unknown = sorted(set(content) - {*_OWN, *_OF_FIT})
    if unknown:
        raise SpecError(
            f"sections must be among {', '.join((*_OWN, *_OF_FIT))}; got {', '.join(unknown)} in "
            f"{where}. Remove them."
        )
    sizes = sorted(_SIZES & set(content.get("vae", {})))
    if sizes:
        raise SpecError(
            f"[vae] must leave the sizes to the data and to factors; got {', '.join(sizes)} in "
            f"{where}. Write factors below [synthesise], or pass --factors."
        )
    if method != "vae" and {"vae", "training"} & set(content):
        raise SpecError(
            f"[vae] and [training] must go with the method vae; got {method} and {where}. Remove "
            "them, or use vae."
        )
    own = validated(SynthesisOptions, content, "synthesise", where)
    transforms = own.transforms
    if transforms is None and "svi" in content:
        transforms = validated(SVIConfig, content, "svi", where).transforms
    return SynthesisSettings(
        method=method,
        factors=_factors(method, own.factors if factors is None else factors),
        mode=_mode(method, own.mode if mode is None else mode),
        transforms=DEFAULT_STEPS if transforms is None else transforms,
        split=validated(SplitSettings, content, "split", where),
        vae=validated(VAESpec, content, "vae", where),
        training=validated(VAETraining, content, "training", where),
    )


def _factors(method: str, factors: int | str | None) -> int | None:
    """Return the number of factors, or None where the evidence is to choose one."""
    if factors is None or factors == AUTO:
        if method == "pca":
            raise SpecError(
                "pca must have a number of factors: it has no likelihood to choose one by; got "
                f"{factors or 'none'}. Pass --factors, or use ppca."
            )
        return None
    text = str(factors)
    if isinstance(factors, bool) or not (text.isascii() and text.isdigit() and int(text)):
        raise SpecError(f"factors must be auto or a number from 1; got {factors!r}. Use 8.")
    return int(text)


def _mode(method: str, mode: str | None) -> Mode:
    """Return the mode, which is an option of pca alone."""
    if mode is None:
        return "pooled"
    if method != "pca":
        raise SpecError(f"mode must go with pca; got {method} and {mode!r}. Leave --mode out.")
    for known in MODES:
        if mode == known:
            return known
    raise SpecError(f"mode must be one of {', '.join(MODES)}; got {mode!r}. Choose one.")
