"""California housing: 20,640 block groups of the 1990 census.

R. K. Pace and R. Barry, "Sparse spatial autoregressions", Statistics & Probability Letters 33, 1997.
Fetched by `sklearn.datasets.fetch_california_housing`, which keeps a pickle in SCIKIT_LEARN_DATA.

| column | type | meaning, unit | range |
|---|---|---|---|
| MedInc | float64 | median income, 10,000 $ | 0.5 to 15 |
| HouseAge | float64 | median age of a house, years | 1 to 52 |
| AveRooms, AveBedrms | float64 | rooms, bedrooms per household | 0.85 to 142, 0.33 to 34 |
| Population | float64 | people in the block group | 3 to 35,682 |
| AveOccup | float64 | people per household | 0.7 to 1,243 |
| Latitude, Longitude | float64 | degrees | 32.5 to 42, -124.4 to -114.3 |
| MedHouseVal | float64 | median house value, 100,000 $ (capped at 5.00001) | 0.15 to 5 |

Derived, in prepared tables only: BedrmsPerRoom = AveBedrms / AveRooms, PeoplePerRoom = AveOccup / AveRooms.
"""

import operator
from pathlib import Path

import numpy as np
import pyarrow as pa

from datasets.dataset import Dataset, Derived, unreachable
from runtime.errors import UserError

FEATURES = ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude")
SCHEMA = pa.schema([(name, pa.float64()) for name in (*FEATURES, "MedHouseVal")])
CACHE = "SCIKIT_LEARN_DATA"
PICKLE = "cal_housing_py3.pkz"
SAMPLE_ROWS = 2_000


def fetch() -> pa.Table:
    from sklearn.datasets import fetch_california_housing

    cached = cache_file()
    try:
        housing = fetch_california_housing(n_retries=1)
    except Exception as error:
        if cached.exists():  # a damaged pickle can raise anything
            raise UserError(
                f"california_housing: the cache {cached} is damaged ({type(error).__name__}: {error}). "
                "Delete that file and run again; it is then fetched anew."
            ) from error
        if isinstance(error, OSError):
            raise unreachable("california_housing", archive_address(), CACHE, cached.parent, error) from error
        raise
    return pa.table([*housing.data.T.copy(), housing.target], schema=SCHEMA)


def cache_file() -> Path:
    from sklearn.datasets import get_data_home

    try:
        return Path(get_data_home(), PICKLE)
    except OSError as error:
        raise UserError(f"california_housing: the folder of {CACHE} cannot be used: {error}.") from error


def archive_address() -> str:
    """Return the address that scikit-learn's loader downloads from; it offers no public name for it."""
    from sklearn.datasets import _california_housing

    return getattr(getattr(_california_housing, "ARCHIVE", None), "url", "the archive of scikit-learn's loader")


def generate() -> pa.Table:
    """Return artificial block groups whose value is a known function of income, age, rooms and place, plus noise."""
    rng = np.random.default_rng(0)
    income = rng.gamma(4.0, 1.0, SAMPLE_ROWS).clip(0.5, 15)
    age = rng.integers(1, 53, SAMPLE_ROWS).astype(np.float64)
    rooms = rng.normal(5.4, 1.0, SAMPLE_ROWS).clip(1)
    bedrooms = (rooms / 5 + rng.normal(0, 0.05, SAMPLE_ROWS)).clip(0.5)
    population = np.round(rng.lognormal(7, 0.6, SAMPLE_ROWS)).clip(3)
    occupancy = rng.normal(3.0, 0.6, SAMPLE_ROWS).clip(1)
    latitude = rng.uniform(32.5, 42, SAMPLE_ROWS)
    longitude = -118 - (latitude - 34) * 0.65 + rng.normal(0, 1, SAMPLE_ROWS)
    inland = np.abs(longitude + 118 + (latitude - 34) * 0.65)
    value = 0.4 * income + 0.005 * age + 0.1 * (rooms - 5.4) - 0.25 * (occupancy - 3) - 0.3 * inland + 0.8
    value = (value + rng.normal(0, 0.2, SAMPLE_ROWS)).clip(0.15, 5.00001)
    columns = [income, age, rooms, bedrooms, population, occupancy, latitude, longitude, value]
    return pa.table(columns, schema=SCHEMA)


DATASET = Dataset(
    name="california_housing",
    title="California housing",
    origin="1990 U.S. census, Pace and Barry (1997), through sklearn.datasets.fetch_california_housing",
    version="StatLib houses, 20,640 rows",
    licence="public domain (U.S. census)",
    citation="Pace and Barry, Sparse spatial autoregressions, Statistics & Probability Letters 33 (1997)",
    schema=SCHEMA,
    features=FEATURES,
    target="MedHouseVal",
    class_names=None,
    target_unit="100,000 $",
    sha256="33235f78a82201479b4c5452224ca8c8de5d9d11d47aabf8ebafbf5213793c49",
    cache=CACHE,
    fetch=fetch,
    address=archive_address,
    cached=cache_file,
    generate=generate,
    limits=(
        "Prices of 1990, capped at 500,001 $, of block groups, not of houses. Income and place stand in for who lives "
        "there: a model of them repeats the segregation of the time. Not for valuing homes, lending or insurance."
    ),
    place=("Longitude", "Latitude"),
    derived={
        "BedrmsPerRoom": Derived(("AveBedrms", "AveRooms"), operator.truediv),
        "PeoplePerRoom": Derived(("AveOccup", "AveRooms"), operator.truediv),
    },
)
