import torch
from hypothesis import given
from hypothesis import strategies as st

from gpbo.seeding import derive, generator

KEYS = st.lists(st.integers() | st.text(alphabet="abc", min_size=1), max_size=3)


def test_the_derived_seed_never_changes():
    # Stored studies go on with these very draws: a change here breaks the continuation of all of them.
    assert derive(0, 17, "screen") == 5431983370392724546


@given(st.integers(), KEYS)
def test_a_seed_fits_torch(seed, key):
    assert 0 <= derive(seed, *key) < 2**63


def test_seed_and_every_part_of_the_key_matter():
    seeds = [derive(0), derive(1), derive(0, 0), derive(0, 1), derive(0, 0, "a"), derive(0, "a", 0)]
    assert len(set(seeds)) == len(seeds)


def test_the_same_address_gives_the_same_draws():
    assert torch.equal(
        torch.rand(5, generator=generator(3, 7, "a")), torch.rand(5, generator=generator(3, 7, "a"))
    )


def test_draws_leave_the_global_state_alone():
    before = torch.get_rng_state()
    torch.rand(5, generator=generator(3, "a"))
    assert torch.equal(before, torch.get_rng_state())


def test_a_generator_lives_on_the_device_it_is_asked_for(device):
    draws = torch.rand(3, generator=generator(0, "x", device=device), device=device)
    assert draws.device.type == device
