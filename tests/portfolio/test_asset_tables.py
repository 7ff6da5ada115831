"""Groups from a file: names by asset, and what is wrong with them."""

from pathlib import Path

import pytest

from nfi_pyro.errors import WeightsError
from nfi_pyro.portfolio.asset_tables import read_groups


def written(folder: Path, text: str) -> Path:
    place = folder / "groups.csv"
    place.write_text(text, encoding="utf-8")
    return place


@pytest.mark.parametrize("header", ["asset,group", "Symbol,Industry", "ts_code,sector"])
def test_groups_are_read_and_blanks_are_no_group(tmp_path: Path, header: str) -> None:
    found = read_groups(written(tmp_path, f"{header}\nA, banks \nB,steel\n\nC,\n"))
    assert found.to_dict() == {"A": "banks", "B": "steel"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("asset,weight\nA,1\n", r"groups must have columns asset and group; got \['asset'"),
        ("asset,group\n", "groups must name at least one asset"),
        ("asset,group\nA,\n", "groups must hold a name; got blanks alone"),
        ("asset,group\nA,x\nA,y\n", "one group; got several for A .*Keep one"),
        ("asset,group\n,x\n", "each group must have an asset; got none at line 2"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        read_groups(written(tmp_path, text))
