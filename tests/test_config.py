"""Settings that no run can be made of."""

import pytest

from npvae.commands import UserError
from npvae.config import Config


@pytest.mark.parametrize("beta", [{"adam_beta1": 1.0}, {"adam_beta2": 1.0}])
def test_an_adam_that_never_forgets_is_refused(beta):
    """With β = 1 the mean is divided by 1 − βᵗ = 0: there is no first step."""
    with pytest.raises(UserError, match=r"--adam-beta[12] 1.0: expected a number from 0 to 0.999999"):
        Config(**beta)
    Config(**dict.fromkeys(beta, 0.999_999))


def test_a_seed_of_more_than_63_bits_is_refused():
    for seed in (2**63, 2**64, -1):
        with pytest.raises(
            UserError, match=f"--seed {seed}: expected a whole number from 0 to 9,223,372,036,854,775,807"
        ):
            Config(seed=seed)
    assert Config.from_json(Config(seed=2**63 - 1).to_json()).seed == 2**63 - 1
