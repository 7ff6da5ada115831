"""`nfi synthesise`, and its scores through fit, forecast and report: no leak, nothing silent."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from nfi_pyro.cli import app, main
from nfi_pyro.commands import fit, forecast, panel, report, synthesise
from nfi_pyro.commands.exposure_run import ExposureRun
from nfi_pyro.commands.run_directory import RunDirectory
from nfi_pyro.commands.synthesis_settings import synthesis_settings
from nfi_pyro.commands.synthesising import synthesise_panel
from nfi_pyro.data.panel import Panel
from nfi_pyro.data.store.digests import panel_hash
from nfi_pyro.data.store.storage import read_panel, write_panel
from nfi_pyro.errors import CheckpointError, PanelError, RunError, SpecError, SplitError
from nfi_pyro.posterior import forecast as forecast_returns
from nfi_pyro.svi import SVIFit, loop
from nfi_pyro.svi.checkpoint import file_digest
from nfi_pyro.svi.inputs import MissingExposureWarning

FEATURES = ["ROC5", "ROC10", "ROC20", "STD5", "STD10", "MA5", "MA20"]
SPLIT = """
[split]
train = ["2018-02-01", "2018-09-28"]
validation = ["2018-10-01", "2018-12-07"]
"""
SPEC = f"""
model = "linear_factor"
[svi]
n_epochs = 2
block_size = 16
{SPLIT}
"""
METHODS: dict[str, dict[str, Any]] = {
    "pca pooled": {"method": "pca", "factors": 2},
    "pca expanding": {"method": "pca", "factors": 2, "mode": "expanding"},
    "pca per_date": {"method": "pca", "factors": 2, "mode": "per_date"},
    "ppca": {"method": "ppca", "factors": 2},
}


@pytest.fixture(scope="module")
def home(prices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with panels up to the end and up to 20 dates before it, and the spec file."""
    place = tmp_path_factory.mktemp("synthesis")
    table = pd.read_csv(prices)
    panel(table, place / "panel.zarr", features=FEATURES)
    dates = sorted(table["date"].unique())
    panel(table[table["date"] <= dates[-20]], place / "short.zarr", features=FEATURES)
    (place / "spec.toml").write_text(SPEC, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def scores(home: Path) -> Path:
    """An exposure run of two factors, made by the command line."""
    said = CliRunner().invoke(
        app,
        ["synthesise", "ppca", "--panel", str(home / "short.zarr"), "--factors", "2",
         "--out", str(home / "scores"), "--spec", str(home / "spec.toml")],
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    assert "exposures 2 of ppca from 7 features: ppca1, ppca2" in said.output
    assert "noise variance" in said.output
    assert "0 tradable rows left out" in said.output
    assert "0 have none and will not enter a fit" in said.output
    return home / "scores"


@pytest.fixture(scope="module")
def given(home: Path, scores: Path) -> Path:
    """A run that was given the exposures, made by the command line."""
    said = CliRunner().invoke(
        app,
        ["fit", str(home / "spec.toml"), "--panel", str(home / "short.zarr"), "--exposures",
         str(scores), "--out", str(home / "run"), "--no-progress"],
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    assert "exposures 2 of ppca of 7 features, fitted on 2018-02-01 to 2018-09-26" in said.output
    assert "without a score 0 of" in said.output
    return home / "run"


def fit_here(home: Path, out: Path, exposures: Path | None, **options: Any) -> SVIFit:
    return fit(
        home / "spec.toml",
        home / "short.zarr",
        out,
        exposures=exposures,
        progress=False,
        **options,
    )


def made(data: Panel, kind: str, **options: Any) -> ExposureRun:
    given = {"mode": None, "spec": None, **METHODS[kind], **options}
    return synthesise_panel(data, synthesis_settings(**given), seed=0)


def sign(run: Path, name: str) -> None:
    """Put the digest of an altered file into the manifest beside it."""
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["sha256"][name] = file_digest(run / name)
    (run / "manifest.json").write_text(json.dumps(manifest))


# ---- one piece of data, end to end ---------------------------------------------------------------


def test_a_run_says_where_its_exposures_come_from(home: Path, given: Path, scores: Path) -> None:
    trained = SVIFit.load(given)
    source = ExposureRun.load(scores)
    lineage = trained.provenance["exposures"]
    assert lineage["names"] == ["ppca1", "ppca2"]
    assert lineage["source"] == "ppca"
    assert lineage["run"] == source.identity
    assert lineage["train"] == ["2018-02-01", "2018-09-26"]
    assert sorted(lineage["features"]) == sorted(FEATURES)
    assert lineage["n_without_score"] == "0"
    assert trained.provenance["factors"] == ["market", "ppca1", "ppca2"]
    data = read_panel(home / "short.zarr")
    assert source.lineage["panel_hash"] == panel_hash(data) == trained.provenance["panel_hash"]
    assert set(source.lineage["versions"]) >= {"nfi_pyro", "torch", "pyro", "numpy", "python"}
    assert source.seed == 0
    assert source.lineage["options"] == {"factors": 2, "transforms": ["robust_zscore"]}
    kept = RunDirectory(given).load_exposures()
    assert kept is not None
    assert kept.identity == source.identity
    names = {path.name for path in scores.iterdir()}
    assert {path.name for path in (given / "exposures").iterdir()} == names
    assert "exposures/manifest.json" in json.loads((given / "manifest.json").read_text())["sha256"]


def test_the_scores_alone_are_what_the_model_prices(home: Path, given: Path, scores: Path) -> None:
    attached = ExposureRun.load(scores).attach(read_panel(home / "short.zarr"))
    laws = forecast_returns(SVIFit.load(given), attached)
    written = RunDirectory(given).load_forecast()
    assert written.data["loc"].equals(laws.data["loc"])
    changed = attached.assign(exposures=attached["exposures"] * -2.0 + 0.3)
    other = forecast_returns(SVIFit.load(given), changed)
    assert not other.data["loc"].equals(laws.data["loc"])


def test_newer_dates_are_scored_and_forecast_by_the_run_itself(
    home: Path, given: Path, scores: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(given, tmp_path / "run")
    moved = tmp_path / "moved"
    shutil.copytree(scores, moved)
    laws = forecast(run, panel=home / "panel.zarr")
    rebuilt = ExposureRun.load(moved).attach(read_panel(home / "panel.zarr"))
    whole = forecast_returns(SVIFit.load(run), rebuilt)
    for name in ("loc", "scale", "beta"):
        assert laws.data[name].equals(whole.data[name]), name
    before = RunDirectory(given).load_forecast()
    shared = laws.data.sel(date=before.data["date"])
    assert laws.data.sizes["date"] == before.data.sizes["date"] + 19
    np.testing.assert_allclose(shared["loc"], before.data["loc"], rtol=1e-5, atol=1e-9)
    page = report(run, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "ppca of 7 features" in page
    assert "ppca1, ppca2" in page


@pytest.mark.parametrize("kind", sorted(METHODS))
def test_every_method_is_saved_and_scores_the_same_bits(
    kind: str, home: Path, tmp_path: Path
) -> None:
    data = read_panel(home / "short.zarr")
    run = made(data, kind)
    found = ExposureRun.load(run.save(tmp_path / "run"))
    whole = read_panel(home / "panel.zarr")
    xr.testing.assert_identical(found.score(whole), run.score(whole))
    assert found.identity == run.identity
    assert run.score(data).attrs["n_without_score"] == str(run.lineage["n_without_score"])


def test_a_panel_on_disk_gives_the_same_exposures(home: Path) -> None:
    memory = made(read_panel(home / "short.zarr"), "ppca")
    disk = read_panel(home / "short.zarr", lazy=True)
    lazy = made(disk, "ppca")
    assert lazy.identity == memory.identity
    np.testing.assert_array_equal(lazy.score(disk), memory.score(read_panel(home / "short.zarr")))


def test_the_hash_of_a_panel_does_not_know_of_exposures(home: Path, scores: Path) -> None:
    data = read_panel(home / "short.zarr")
    assert panel_hash(ExposureRun.load(scores).attach(data)) == panel_hash(data)


def test_an_autoencoder_is_made_by_the_command_line(home: Path, tmp_path: Path) -> None:
    spec = tmp_path / "vae.toml"
    spec.write_text(f"[vae]\nhidden_sizes = [5]\n[training]\nn_epochs = 3\n{SPLIT}")
    command = ["synthesise", "vae", "--panel", str(home / "short.zarr"), "--spec", str(spec)]
    for name in ("one", "two"):
        options = ["--factors", "2", "--seed", "5", "--out", str(tmp_path / name)]
        said = CliRunner().invoke(app, [*command, *options])
        assert said.exit_code == 0, said.output
        assert "2 of 2 latents active" in said.output
        assert "nats per validation row" in said.output
    one, two = (ExposureRun.load(tmp_path / name) for name in ("one", "two"))
    assert one.identity == two.identity
    assert one.known_until == ("2018-09-26", "2018-12-07")
    assert one.lineage["options"]["training"]["n_epochs"] == 3


# ---- the number of factors -----------------------------------------------------------------------


def planted(make_panel: Callable[..., Panel], n_factors: int) -> Panel:
    """Return a panel whose 11 features are a few factors and noise."""
    data = make_panel(n_dates=101, n_assets=31, n_features=11, seed=2)
    rng = np.random.default_rng(7)
    z = rng.normal(size=(101, 31, n_factors))
    loadings = rng.normal(size=(n_factors, 11))
    values = (z @ loadings + 0.3 * rng.normal(size=(101, 31, 11))).astype(np.float32)
    tradable = data["tradable"].to_numpy()
    values[~tradable] = np.nan
    data["features"].values[:] = values
    return data


@pytest.mark.parametrize("n_factors", [2, 4])
def test_auto_finds_the_planted_number_on_validation(
    n_factors: int, make_panel: Callable[..., Panel], tmp_path: Path
) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text("[synthesise]\ntransforms = []\n")  # clipping is not of the planted kind
    run = made(planted(make_panel, n_factors), "ppca", factors="auto", spec=spec)
    assert len(run.lineage["factors"]) == n_factors
    assert run.lineage["evidence"]["n_factors"] == [1, 2, 3, 4, 6, 8]
    assert run.known_until[1] == run.split.validation.last
    told = made(planted(make_panel, n_factors), "ppca", spec=spec)
    assert told.known_until[1] == run.split.train.last  # nothing was chosen on validation


# ---- leaks ---------------------------------------------------------------------------------------


def corrupted(data: Panel, position: int, *, after: bool) -> Panel:
    """Return the panel with all features after a date, or one cell before it, replaced."""
    copy: Any = data.copy(deep=True)
    values = copy["features"].values
    rng = np.random.default_rng(11)
    if after:
        values[position:] = np.where(
            np.isfinite(values[position:]), rng.normal(5.0, 3.0, values[position:].shape), np.nan
        )
    else:
        values[position - 1, int(copy["tradable"].values[position - 1].argmax()), 3] += 2.0
    return copy


@pytest.mark.parametrize("kind", sorted(METHODS))
def test_nothing_after_the_training_span_reaches_the_fit(kind: str, home: Path) -> None:
    data = read_panel(home / "short.zarr")
    spec = home / "spec.toml"
    base = made(data, kind, spec=spec)
    stop = base.split.train.positions(data["date"].values).stop
    later = made(corrupted(data, stop, after=True), kind, spec=spec)
    assert isinstance(base.fit.loadings, xr.DataArray)  # type: ignore[union-attr]
    assert later.fit.loadings.identical(base.fit.loadings)  # type: ignore[union-attr]
    assert later.transforms.as_dict() == base.transforms.as_dict()
    before = made(corrupted(data, stop, after=False), kind, spec=spec)
    assert not before.fit.loadings.equals(base.fit.loadings)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", sorted(METHODS))
def test_no_score_knows_of_a_later_date(kind: str, home: Path) -> None:
    data = read_panel(home / "short.zarr")
    run = made(data, kind, spec=home / "spec.toml")
    stop = run.split.train.positions(data["date"].values).stop + 7
    changed = corrupted(data, stop, after=True)
    base, later = run.score(data), run.score(changed)
    np.testing.assert_array_equal(later[:stop], base[:stop])
    assert not later[stop:].equals(base[stop:])
    one = run.score(corrupted(data, stop, after=False))
    assert not one[stop - 1].equals(base[stop - 1])


def test_an_expanding_score_knows_of_its_own_past_alone(home: Path) -> None:
    data = read_panel(home / "short.zarr")
    spec = home / "spec.toml"
    transforms: Any = "cs_zscore"  # fitted on nothing, so that the fit alone can leak
    settings = synthesis_settings("pca", spec=spec, factors=2, mode="expanding")
    settings = type(settings)(**{**vars(settings), "transforms": (transforms,)})
    base = synthesise_panel(data, settings, seed=0)
    middle = base.split.train.positions(data["date"].values).stop - 40
    changed = corrupted(data, middle, after=True)
    later = synthesise_panel(changed, settings, seed=0)
    assert later.score(changed)[:middle].equals(base.score(data)[:middle])
    assert not later.score(changed)[middle:].equals(base.score(data)[middle:])


def test_a_fit_refuses_exposures_of_a_later_past(home: Path, tmp_path: Path) -> None:
    late = synthesise("ppca", home / "short.zarr", tmp_path / "late", factors=2)
    assert late.split.train.last > "2018-09-26"
    with pytest.raises(SplitError, match=r"fitted on dates after the training span .* 2018-09-26"):
        fit_here(home, tmp_path / "run", tmp_path / "late")
    spec = tmp_path / "spec.toml"
    spec.write_text(SPLIT.replace("2018-12-07", "2019-01-18"))
    synthesise("ppca", home / "short.zarr", tmp_path / "chosen", spec=spec)
    with pytest.raises(SplitError, match=r"chosen on dates after the validation .* 2018-12-07"):
        fit_here(home, tmp_path / "run", tmp_path / "chosen")
    assert not (tmp_path / "run").exists()
    synthesise("ppca", home / "short.zarr", tmp_path / "told", spec=spec, factors=2)
    fit_here(home, tmp_path / "run", tmp_path / "told")  # nothing was chosen on those dates


# ---- missing scores ------------------------------------------------------------------------------


def test_rows_without_a_score_are_counted_and_do_not_enter(home: Path, tmp_path: Path) -> None:
    data = read_panel(home / "short.zarr").copy(deep=True)
    place = 100
    data["tradable"].values[place, 2:] = False  # 2 rows are too few for 2 factors
    write_panel(data, tmp_path / "thin.zarr")
    said = CliRunner().invoke(
        app,
        ["synthesise", "pca", "--panel", str(tmp_path / "thin.zarr"), "--factors", "2",
         "--mode", "per_date", "--out", str(tmp_path / "scores"), "--spec",
         str(home / "spec.toml")],
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    assert "short     1 training dates without axes" in said.output
    assert "; 2 have none and will not enter a fit" in said.output
    with pytest.warns(MissingExposureWarning, match="2 of 2862 tradable cells lack an exposure"):
        said = CliRunner().invoke(
            app,
            ["fit", str(home / "spec.toml"), "--panel", str(tmp_path / "thin.zarr"),
             "--exposures", str(tmp_path / "scores"), "--out", str(tmp_path / "run"),
             "--no-progress"],
        )  # fmt: skip
    assert said.exit_code == 0, said.output
    assert "without a score 2 of" in said.output
    trained = SVIFit.load(tmp_path / "run")
    assert trained.provenance["exposures"]["n_without_score"] == "2"
    tradable = trained.provenance["n_tradable_cells"]
    assert trained.provenance["n_entered_cells"] == tradable - 2
    laws = RunDirectory(tmp_path / "run").load_forecast()
    day = data["date"].values[place]
    assert not laws.data["entered"].sel(date=day).any()
    assert laws.data["loc"].sel(date=day).isnull().all()


# ---- resuming ------------------------------------------------------------------------------------


def test_an_interrupted_fit_resumes_with_its_own_exposures_alone(
    home: Path, given: Path, scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop.TrainingLoop.run_epoch

    def stop_in_the_second(self: loop.TrainingLoop, bar: object) -> None:
        if self.epoch == 1:
            raise KeyboardInterrupt
        original(self, bar)  # type: ignore[arg-type]

    out = tmp_path / "run"
    monkeypatch.setattr(loop.TrainingLoop, "run_epoch", stop_in_the_second)
    assert fit_here(home, out, scores).status == "interrupted"
    monkeypatch.undo()
    kwargs: Any = {"factors": 2, "spec": home / "spec.toml"}
    synthesise("pca", home / "short.zarr", tmp_path / "other", **kwargs)
    with pytest.raises(CheckpointError, match="got another exposures_hash at"):
        fit_here(home, out, tmp_path / "other", resume=True)
    with pytest.raises(CheckpointError, match="got another exposures_hash, spec at"):
        fit_here(home, out, None, resume=True)
    resumed = fit_here(home, out, scores, resume=True)
    whole = SVIFit.load(given)
    for name, value in whole.model.state_dict().items():
        assert value.equal(resumed.model.state_dict()[name]), name
    assert (out / "forecast.nc").read_bytes() == (given / "forecast.nc").read_bytes()
    assert fit_here(home, out, scores, resume=True).history.equals(resumed.history)
    with pytest.raises(RunError, match="got another exposure run for"):
        fit_here(home, out, tmp_path / "other", resume=True)
    with pytest.raises(RunError, match="exposure run for"):
        fit_here(home, out, None, resume=True)


# ---- altered files -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exposure_model.npz", "exposure.json", "manifest.json"])
def test_an_altered_file_is_refused_where_it_is_used(
    name: str, home: Path, given: Path, scores: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(scores, tmp_path / "scores")
    run = shutil.copytree(given, tmp_path / "run")
    for place in (source, run / "exposures"):
        content = (place / name).read_bytes()
        (place / name).write_bytes(content.replace(content[40:44], b"0000"))
    with pytest.raises((CheckpointError, RunError), match=r"must (match its|exist|be|list)"):
        fit_here(home, tmp_path / "out", source)
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="must match its digest"):
        forecast(run)
    with pytest.raises(CheckpointError, match="must match its digest"):
        report(run, tmp_path / "r.html")


def test_exposures_of_another_run_are_refused_even_with_their_own_manifest(
    home: Path, given: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(given, tmp_path / "run")
    shutil.rmtree(run / "exposures")
    synthesise("ppca", home / "short.zarr", run / "exposures", factors=2)
    with pytest.raises(CheckpointError, match=r"exposures/manifest.json must match its digest"):
        forecast(run)
    shutil.rmtree(run / "exposures")
    with pytest.raises(CheckpointError, match="must exist; got no such file"):
        forecast(run)


def test_a_description_of_another_version_is_one_error(scores: Path, tmp_path: Path) -> None:
    run = shutil.copytree(scores, tmp_path / "scores")
    whole = json.loads((run / "exposure.json").read_text())
    versions: tuple[Any, ...] = (
        [],
        {},
        whole | {"method": "ica"},
        whole | {"transforms": {}},
        whole | {"split": {}},
        whole | {"seed": "x"},
        whole | {"lineage": 3},
    )
    for broken in versions:
        (run / "exposure.json").write_text(json.dumps(broken))
        sign(run, "exposure.json")
        with pytest.raises(RunError, match=r"exposure.json of an exposure run must be that of"):
            ExposureRun.load(run)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "ica"}, "the method must be one of pca, ppca, vae; got 'ica'"),
        ({"method": "pca"}, "pca must have a number of factors"),
        ({"method": "pca", "factors": "auto"}, "pca must have a number of factors"),
        ({"method": "ppca", "factors": 0}, "factors must be auto or a number from 1; got 0"),
        (
            {"method": "ppca", "factors": "few"},
            "factors must be auto or a number from 1; got 'f",
        ),
        ({"method": "ppca", "factors": True}, "factors must be auto or a number from 1; got True"),
        ({"method": "ppca", "factors": 7}, "n_factors must be an integer from 1 to 6 for 7 feat"),
        ({"method": "pca", "factors": 8}, "n_factors must be an integer from 1 to 7 for 7 feat"),
        ({"method": "ppca", "mode": "pooled"}, "mode must go with pca; got ppca"),
        ({"method": "pca", "factors": 2, "mode": "all"}, "mode must be one of pooled, per_date"),
        ({"method": "ppca", "seed": -1}, r"seed must be in \[0, 2\*\*64\); got -1"),
        ({"method": "ppca", "spec": "none.toml"}, "--spec must be a TOML file; got none.toml"),
    ],
)
def test_a_wrong_option_is_one_error_and_leaves_nothing(
    options: dict[str, Any], said: str, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=said):
        synthesise(panel=home / "short.zarr", out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "text", "said"),
    [
        ("ppca", "[other]\nx = 1", "sections must be among synthesise, vae, training, split"),
        ("ppca", "[vae]\nactivation = 'silu'", r"\[vae\] and \[training\] must go with the"),
        ("vae", "[vae]\nn_factors = 3", r"\[vae\] must leave the sizes .* got n_factors"),
        ("vae", "[training]\nn_epochs = 0", "training.n_epochs must be greater than or equal to"),
        ("ppca", "[synthesise]\nfactor = 2", "synthesise.factor must be a known key"),
        ("ppca", "[synthesise]\ntransforms = ['log']", "a transform must be one of"),
        ("ppca", "[synthesise", "must be valid TOML"),
    ],
)
def test_a_wrong_file_is_one_error(
    method: str, text: str, said: str, home: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(text)
    with pytest.raises(SpecError, match=said):
        synthesise(method, home / "short.zarr", tmp_path / "out", spec=spec)


def test_a_span_without_dates_leaves_no_folder(home: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(SPLIT.replace("2018-02-01", "2008-02-01").replace("2018-09-28", "2008-09-28"))
    with pytest.raises(SplitError, match="must hold at least one date of the panel"):
        synthesise("ppca", home / "short.zarr", tmp_path / "out", spec=spec)
    assert not (tmp_path / "out").exists()


def test_options_of_the_command_line_win_over_the_file(tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    steps = "[svi]\ntransforms = ['cs_zscore']"
    spec.write_text(f"[synthesise]\nfactors = 3\nmode = 'expanding'\n{steps}")
    found = synthesis_settings("pca", spec=spec, factors=None, mode=None)
    assert (found.factors, found.mode, found.transforms) == (3, "expanding", ("cs_zscore",))
    found = synthesis_settings("pca", spec=spec, factors="5", mode="pooled")
    assert (found.factors, found.mode) == (5, "pooled")


def test_a_run_is_not_overwritten(home: Path, scores: Path, given: Path) -> None:
    for place in (scores, given, home):
        with pytest.raises(RunError, match=r"must have a folder of its own; got (?!.*--resume)"):
            synthesise("ppca", home / "short.zarr", place, factors=2)


def test_other_features_are_refused(home: Path, prices: Path, scores: Path, given: Path) -> None:
    run = ExposureRun.load(scores)
    data = read_panel(home / "short.zarr")
    for names in (FEATURES[:-1], FEATURES[::-1]):
        with pytest.raises(PanelError, match="the panel's features must be those of the fit"):
            run.score(Panel(data.sel(feature=names)))
    write_panel(Panel(data.sel(feature=FEATURES[1:])), home / "fewer.zarr")
    with pytest.raises(PanelError, match=r"missing \['ROC5'\]"):
        fit(home / "spec.toml", home / "fewer.zarr", home / "o", exposures=scores, progress=False)
    with pytest.raises(PanelError, match=r"missing \['ROC5'\]"):
        forecast(given, panel=home / "fewer.zarr")
    assert not (home / "o").exists()


def test_exposures_of_two_sources_are_refused(home: Path, scores: Path, tmp_path: Path) -> None:
    run = ExposureRun.load(scores)
    write_panel(run.attach(read_panel(home / "short.zarr")), tmp_path / "both.zarr")
    with pytest.raises(PanelError, match="or be given a run of `nfi synthesise`, not both"):
        fit(home / "spec.toml", tmp_path / "both.zarr", tmp_path / "o", exposures=scores)


@pytest.mark.parametrize("model", ["factor_vae", "nfi"])
def test_a_model_that_learns_its_own_takes_none(
    model: str, home: Path, scores: Path, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=f"got {model}, which learns its own from the features"):
        fit(model, home / "short.zarr", tmp_path / "run", exposures=scores)
    assert not (tmp_path / "run").exists()


def test_what_is_no_exposure_run_is_one_line(
    home: Path,
    given: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for place, found in ((home, "none"), (given, "another run"), (tmp_path / "no", "none")):
        arguments = ["fit", str(home / "spec.toml"), "--panel", str(home / "short.zarr"),
                     "--exposures", str(place), "--out", str(tmp_path / "run")]  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["nfi", *arguments])
        with pytest.raises(SystemExit, match="1"):
            main()
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        assert f"`nfi synthesise --out` wrote; got {found} at {place}" in said
