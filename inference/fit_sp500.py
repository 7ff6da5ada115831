"""FactorVAE on the 20 embedded S&P 500 stocks: fit, InferenceData, portfolio risk, scores.

Run ``python inference/fit_sp500.py [--out RUN]``. No file is needed: the prices ship with skfolio.
The same job in one command is ``nfi demo``; this script shows it in Python.
"""

import argparse
from pathlib import Path

import arviz as az

from nfi_pyro.commands.evaluation import evaluate
from nfi_pyro.commands.settings import read_settings
from nfi_pyro.data import build_panel, embedded_prices
from nfi_pyro.factor_vae import FactorVAE, FactorVAESpec
from nfi_pyro.portfolio import equal_weights, portfolio_risk
from nfi_pyro.posterior import forecast, sample_posterior, to_inference_data
from nfi_pyro.svi import fit_svi

SPEC = Path(__file__).parents[1] / "models" / "factor_vae" / "demo.toml"


def main() -> None:
    """Fit, evaluate on the validation span, and print risk and posterior."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("inference/runs/sp500"))
    parser.add_argument("--spec", type=Path, default=SPEC)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    prices = embedded_prices().sel(date=slice("1999-01-01", None))
    panel = build_panel(prices)
    settings = read_settings(arguments.spec).for_panel(panel)
    split = settings.split.resolve(panel["date"].values, dict(panel["forward_return"].attrs))
    fit = fit_svi(
        FactorVAE(FactorVAESpec.model_validate(settings.spec.model_dump())),
        panel,
        split=split,
        config=settings.svi,
        seed=arguments.seed,
    )
    fit.save(arguments.out)

    laws = forecast(fit, panel)
    result = evaluate(fit, laws, panel, split.validation)
    skill = result.information_coefficient
    print(f"validation Rank IC {skill.mean:+.4f} (s.e. {skill.standard_error:.4f})")
    print(result.scores.table.to_dataframe().to_string(float_format="{:.4f}".format))
    print(result.calibration.coverage.to_dataframe().to_string(float_format="{:.3f}".format))

    risk = portfolio_risk(laws, equal_weights(laws))
    share = risk.factor_variance / risk.standard_deviation**2
    print(f"equal-weight book: sd {risk.standard_deviation:.2%}, factor share {share:.0%}")
    for level in risk.value_at_risk["level"].values:
        loss, shortfall = risk.value_at_risk.sel(level=level), risk.expected_shortfall
        print(f"  VaR {level:.0%} {float(loss):.2%}, ES {float(shortfall.sel(level=level)):.2%}")

    posterior = sample_posterior(fit, panel, draws=200, seed=arguments.seed, dates=("2018", None))
    container = to_inference_data(fit, posterior, laws)
    table = az.summary(
        container,
        var_names=["book_factor_return"],
        coords={"date": container.posterior["date"].values[-5:]},
        kind="stats",
    )
    print(table.to_string())


if __name__ == "__main__":
    main()
