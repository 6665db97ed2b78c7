import gpytorch
import pytest
import torch
from botorch.acquisition.analytic import LogExpectedImprovement, PosteriorMean, UpperConfidenceBound
from botorch.acquisition.knowledge_gradient import qKnowledgeGradient
from botorch.acquisition.logei import qLogExpectedImprovement, qLogNoisyExpectedImprovement
from botorch.acquisition.monte_carlo import qUpperConfidenceBound
from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from botorch.models.gp_regression import SingleTaskGP
from botorch.models.model import ModelList
from botorch.models.model_list_gp_regression import ModelListGP
from botorch.optim.optimize import optimize_acqf
from botorch.sampling.normal import SobolQMCNormalSampler
from linear_operator.utils.errors import NotPSDError

from gpbo import Categorical, Float, SearchSpace, Study
from gpbo.cube import Cube
from gpbo.data import Dataset
from gpbo.errors import SettingError
from gpbo.gp import Hypers, fit_gp, make_gp
from gpbo.gp.hypers import MEAN_VAR
from gpbo.integrations.botorch import BotorchSuggester, _noisy_improvement, to_botorch

D = 3


def draws(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def process(X, frequency=5.0):
    y = torch.sin(frequency * X).sum(-1)
    plain = {"lengthscale": [0.4, 0.6, 0.8], "noise_var": 1e-2, "outputscale": 1.5}
    return make_gp(Cube.continuous(D), X, (y - y.mean()) / y.std(), Hypers.from_dict(plain, X.device))


def oracle(gp, X):
    """BoTorch's model with the same hyper-parameters."""
    matern = gpytorch.kernels.MaternKernel(nu=gp.nu, ard_num_dims=D)
    covariance, constant = gpytorch.kernels.ScaleKernel(matern), gpytorch.kernels.ConstantKernel()
    model = SingleTaskGP(
        X, gp.y.unsqueeze(-1), covar_module=covariance + constant, outcome_transform=None
    ).to(X)
    constant.constant = torch.tensor(MEAN_VAR, dtype=torch.float64)
    matern.lengthscale = gp.hypers.lengthscale
    covariance.outputscale = gp.hypers.outputscale
    model.likelihood.noise = gp.hypers.noise_var
    model.mean_module.constant.data.fill_(0.0)
    return model.eval()


@pytest.fixture(autouse=True)
def _seeded():
    """botorch draws from the process-wide generator, for instance to prune."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def X(device):
    return draws(20, D, seed=0).to(device)


@pytest.fixture
def models(X):
    """gpbo's model of one output and botorch's own."""
    gp = process(X)
    return to_botorch(gp, X), oracle(gp, X)


@pytest.fixture
def pairs(X):
    """The same for two outputs."""
    gps = [process(X, 5.0), process(X, 3.0)]
    return to_botorch(gps, X), ModelListGP(*(oracle(gp, X) for gp in gps))


def equal(one, two):
    return torch.allclose(one, two, rtol=1e-6, atol=1e-9)


def sampler(n=32):
    return SobolQMCNormalSampler(torch.Size([n]), seed=3)


ACQUISITIONS = {
    "posterior mean": lambda model, X: PosteriorMean(model),
    "log ei": lambda model, X: LogExpectedImprovement(model, best_f=0.6),
    "ucb": lambda model, X: UpperConfidenceBound(model, beta=2.0),
    "q log ei": lambda model, X: qLogExpectedImprovement(model, best_f=0.6, sampler=sampler()),
    "q log ei, pending": lambda model, X: qLogExpectedImprovement(
        model, best_f=0.6, sampler=sampler(), X_pending=X[:2] + 0.05
    ),
    "q log nei": lambda model, X: qLogNoisyExpectedImprovement(model, X, sampler=sampler()),
    "q ucb": lambda model, X: qUpperConfidenceBound(model, beta=2.0, sampler=sampler()),
}


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_acquisition_values_and_gradients_equal_those_on_a_gpytorch_model(name, models, X):
    q = 3 if name.startswith("q") else 1
    T = draws(4, q, D, seed=5).to(X)
    results = []
    for model in models:
        T = T.detach().clone().requires_grad_(True)
        value = ACQUISITIONS[name](model, X)(T)
        results.append((value, *torch.autograd.grad(value.sum(), T)))
    ours, expected = results
    assert ours[0].shape == (4,)
    assert equal(ours[0], expected[0])
    assert torch.allclose(ours[1], expected[1], rtol=1e-5, atol=1e-8)


def test_knowledge_gradient_looks_ahead_on_fantasies_as_on_a_gpytorch_model(models, X):
    T = draws(3, 2 + 8, D, seed=6).to(X)
    results = []
    for model in models:
        T = T.detach().clone().requires_grad_(True)
        value = qKnowledgeGradient(model, num_fantasies=8, sampler=sampler(8))(T)
        results.append((value, *torch.autograd.grad(value.sum(), T)))
    ours, expected = results
    assert equal(ours[0], expected[0])
    assert torch.allclose(ours[1], expected[1], rtol=1e-5, atol=1e-7)


def test_the_hypervolume_acquisition_equals_that_on_a_gpytorch_model(pairs, X):
    T = draws(4, 2, D, seed=7).to(X)
    values = [
        qLogNoisyExpectedHypervolumeImprovement(
            model, torch.tensor([-2.0, -2.0]).to(X), X, sampler=sampler(), prune_baseline=False
        )(T)
        for model in pairs
    ]
    assert equal(*values)


def test_the_posterior_in_every_form_equals_that_of_a_gpytorch_model(pairs, X):
    T = draws(5, 4, D, seed=8).to(X)
    weights = ScalarizedPosteriorTransform(torch.tensor([0.3, -1.2]).to(X))
    forms = [{}, {"observation_noise": True}, {"posterior_transform": weights}, {"output_indices": [1]}]
    for form in forms:
        one, two = (model.posterior(T, **form) for model in pairs)
        assert equal(one.mean, two.mean)
        assert equal(one.variance, two.variance)
        assert equal(
            one.rsample_from_base_samples(
                torch.Size([2]), base := draws(2, *one.base_sample_shape, seed=1).to(X)
            ),
            two.rsample_from_base_samples(torch.Size([2]), base),
        )
    noise = draws(5, 4, 2, seed=9).to(X)
    given = pairs[0].posterior(T, observation_noise=noise)
    assert equal(given.variance, pairs[0].posterior(T).variance + noise)
    one, two = (model.subset_output([1]).posterior(T) for model in pairs)
    assert equal(one.mean, two.mean)


def test_conditioning_equals_that_of_a_gpytorch_model(models, X):
    T, new = draws(6, 2, D, seed=10).to(X), draws(3, D, seed=11).to(X)
    Y = torch.cos(new.sum(-1, keepdim=True))
    models[1].posterior(T)  # gpytorch conditions only what has predicted before
    for x, y in [(new, Y), (new.expand(6, 3, D), Y + draws(6, 1, 1, seed=12).to(X))]:
        one, two = (model.condition_on_observations(x, y) for model in models)
        a, b = one.posterior(T), two.posterior(T)
        assert equal(a.mean, b.mean)
        assert equal(a.variance, b.variance)
        assert one.batch_shape == two.batch_shape
    assert len(models[0].train_inputs[0]) == len(models[0].train_targets) == 20
    assert len(models[0].condition_on_observations(new, Y).train_inputs[0]) == 23


def test_conditioning_twice_is_conditioning_once_on_both(models, X):
    model, T = models[0], draws(4, 2, D, seed=13).to(X)
    A, B = draws(5, 1, 2, D, seed=14).to(X), draws(4, 3, D, seed=15).to(X)
    y, z = draws(5, 1, 2, 1, seed=16).to(X), draws(4, 3, 1, seed=17).to(X)
    twice = model.condition_on_observations(A, y).condition_on_observations(B, z)
    both = torch.cat([A.expand(5, 4, 2, D), B.expand(5, 4, 3, D)], dim=-2)
    values = torch.cat([y.expand(5, 4, 2, 1), z.expand(5, 4, 3, 1)], dim=-2)
    once = model.condition_on_observations(both, values)
    assert twice.batch_shape == once.batch_shape == (5, 4)
    assert equal(twice.posterior(T).mean, once.posterior(T).mean)
    assert equal(twice.posterior(T).variance, once.posterior(T).variance)
    noisy = model.condition_on_observations(A, y, noise=torch.full_like(y, 1e9))
    assert torch.allclose(noisy.posterior(T).mean, model.posterior(T).mean.expand(5, 4, 2, 1), atol=1e-6)


def test_fantasies_at_no_point_keep_the_posterior(models, X):
    T = draws(4, 2, D, seed=13).to(X)
    model = models[0].fantasize(X[:0], sampler(6))
    assert model.batch_shape == (6,)
    assert equal(
        model.posterior(T.unsqueeze(1)).mean, models[0].posterior(T).mean.unsqueeze(1).expand(4, 6, 2, 1)
    )
    assert equal(model.subset_output([0]).posterior(T[0]).mean[3], models[0].posterior(T[0]).mean)


def test_a_model_list_takes_it(models, X):
    model = ModelList(models[0], models[0])
    T = draws(4, 2, D, seed=13).to(X)
    assert equal(model.posterior(T).mean[..., 1:], models[0].posterior(T).mean)


@pytest.mark.parametrize("name", ["log ei", "q log nei", "kg"])
def test_botorch_optimises_it(name, models, X):
    bounds = torch.tensor([[0.0] * D, [1.0] * D]).to(X)
    made = [
        qKnowledgeGradient(model, num_fantasies=4, sampler=sampler(4))
        if name == "kg"
        else ACQUISITIONS[name](model, X)
        for model in models
    ]
    x, value = optimize_acqf(
        made[0], bounds, q=1, num_restarts=2, raw_samples=16, options={"seed": 0, "maxiter": 20}
    )
    assert ((x >= 0) & (x <= 1)).all()
    assert x.shape == (1, D)
    if name != "kg":
        assert torch.allclose(made[1](x), value, rtol=1e-5)
        assert value > made[0](draws(16, 1, D, seed=20).to(X)).mean()


def test_a_mixed_space_and_pending_rows():
    space = SearchSpace(x=Float(0, 1), c=Categorical(["a", "b", "c"]), y=Float(0, 1, when={"c": "a"}))
    T = space.cube.draw(12, torch.Generator().manual_seed(0))
    plain = {"lengthscale": [0.5, 0.7, 0.9], "noise_var": 1e-3, "outputscale": 1.0}
    gp = make_gp(space.cube, T, T[:, 0], Hypers.from_dict(plain, T.device))
    new = space.cube.draw(2, torch.Generator().manual_seed(1))
    waiting = to_botorch(gp.condition(new), torch.cat([T, new]))
    posterior = waiting.posterior(new.unsqueeze(1))
    assert torch.allclose(posterior.mean.flatten(), gp.marginal(new)[0])
    assert (posterior.variance.flatten() < 1e-3).all()


def test_processes_must_fit_the_points(X):
    with pytest.raises(SettingError, match=r"`gps` must be processes with a row for each of the 19 points"):
        to_botorch(process(X), X[:-1])
    with pytest.raises(SettingError, match=r"`gps` must be processes .* got \[\] rows"):
        to_botorch([], X)


# The suggester. ----------------------------------------------------------------


def loss(config):
    return (config["x"] - 0.7) ** 2 + (config["y"] - 0.2) ** 2


SQUARE = {"x": Float(0, 1), "y": Float(0, 1)}
MADE_BY_USERS = {
    "default": BotorchSuggester(n_initial=4),
    "log ei": BotorchSuggester(
        acquisition=lambda model, best_f, X, pending: LogExpectedImprovement(model, best_f), n_initial=4
    ),
    "q log ei": BotorchSuggester(
        acquisition=lambda model, best_f, X, pending: qLogExpectedImprovement(
            model, best_f, sampler=sampler(64), X_pending=pending
        ),
        n_initial=4,
    ),
    "kernel": BotorchSuggester(
        acquisition=lambda model, best_f, X, pending: UpperConfidenceBound(model, beta=1.0),
        kernel=gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=2)),
        n_initial=4,
    ),
}


@pytest.mark.parametrize("name", MADE_BY_USERS)
def test_a_study_finds_the_minimum_with_what_the_user_brings(name):
    study = Study(SQUARE, suggester=MADE_BY_USERS[name], device="cpu")
    study.optimize(loss, 12, progress=False)
    assert [t.info["source"] for t in study.trials] == ["initial"] * 4 + ["botorch"] * 8
    assert study.best.value < 2e-3


@pytest.mark.parametrize("kernel", [None, gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=2)])
def test_an_outcome_constraint(kernel):
    # The least x + 2 y with x y >= 1/10 is sqrt(0.8).
    study = Study(
        SQUARE, suggester=BotorchSuggester(kernel=kernel), outcome_constraints="area >= 0.1", device="cpu"
    )
    study.optimize(
        lambda c: (c["x"] + 2.0 * c["y"], {"area": c["x"] * c["y"]}), 14 if kernel else 20, progress=False
    )
    assert not any("fallback" in trial.info for trial in study.trials)
    assert study.best.value < 1.03 * 0.8**0.5


def test_only_the_right_side_of_the_bound_is_worth_something():
    X = torch.rand(12, 2, generator=torch.Generator().manual_seed(0)).double()
    gps = [fit_gp(SearchSpace(SQUARE).cube, X, y)[0] for y in (X[:, 0], 2.0 * X.sum(-1) - 2.0)]
    Z = torch.stack([gp.y for gp in gps], -1)
    points = torch.tensor([[0.95, 0.95], [0.95, 0.02]]).double().unsqueeze(-2)  # 1.8 and -0.06

    def worth(threshold):
        thresholds = torch.tensor([threshold]).double()
        return _noisy_improvement(to_botorch(gps, X), X, Z, thresholds, None, 0)(points)

    bound, free = worth(0.5), worth(-9.0)
    assert bound[0] > bound[1] + 2.0
    assert (free[0] - free[1]).abs() < 0.1


def test_a_function_of_the_users_sees_infeasible_trials_as_failed():
    seen = []

    def acquisition(model, best_f, X, pending):
        seen.append((model.num_outputs, len(X)))
        return PosteriorMean(model)

    study = Study(
        SQUARE,
        suggester=BotorchSuggester(acquisition=acquisition),
        outcome_constraints="x <= 0.5",
        device="cpu",
    )
    for k in range(6):
        study.add({"x": k / 5, "y": 0.3}, k, outcomes={"x": k / 5})
    study.ask()
    assert seen == [(1, 3)]


def test_the_users_kernel_is_fitted_and_left_as_it_was():
    seen = []

    def acquisition(model, best_f, X, pending):
        seen.append(model.covar_module.base_kernel.lengthscale.flatten().tolist())
        return PosteriorMean(model)

    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel(ard_num_dims=2))
    before = {name: value.clone() for name, value in kernel.state_dict().items()}
    suggester = BotorchSuggester(acquisition=acquisition, kernel=kernel, n_initial=4)
    Study(SQUARE, suggester=suggester, device="cpu").optimize(
        lambda config: config["x"] ** 2, 6, progress=False
    )
    assert len(seen) == 2
    for relevant, irrelevant in seen:
        assert irrelevant > 2 * relevant
    for name, value in kernel.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("analytic", [True, False])
def test_points_being_evaluated_are_avoided(analytic):
    def acquisition(model, best_f, X, pending):
        seen.append(pending)
        if analytic:
            return LogExpectedImprovement(model, best_f)
        return qLogExpectedImprovement(model, best_f, sampler=sampler(64), X_pending=pending)

    cube = SearchSpace(SQUARE).cube
    T = cube.draw(10, torch.Generator().manual_seed(0))
    Y = -((T - 0.5) ** 2).sum(-1, keepdim=True)
    data = Dataset(T, Y, torch.full((10,), torch.nan), pending=T[:0], number=10)
    suggester = BotorchSuggester(acquisition=acquisition)
    seen = []
    [x] = suggester.suggest(data, cube, 1, 0).X
    assert seen == [None]
    waiting = Dataset(T, Y, data.budget, pending=x[None], number=11)
    two = suggester.suggest(waiting, cube, 2, 0).X
    assert [len(pending) for pending in seen[1:]] == ([1, 1, 2, 2] if analytic else [1, 2])
    assert torch.pdist(torch.cat([x[None], two])).min() > 1e-3


def test_best_f_has_a_number_for_each_objective():
    seen = []

    def acquisition(model, best_f, X, pending):
        seen.append((best_f, model.num_outputs, len(X)))
        weights = torch.tensor([0.5, 0.5], dtype=torch.float64)
        return UpperConfidenceBound(model, 1.0, posterior_transform=ScalarizedPosteriorTransform(weights))

    for kernel in (None, gpytorch.kernels.MaternKernel()):
        suggester = BotorchSuggester(acquisition=acquisition, kernel=kernel, n_initial=4)
        study = Study(SQUARE, suggester=suggester, direction=["minimize", "maximize"], device="cpu")
        study.optimize(lambda config: (loss(config), config["x"]), 5, progress=False)
    assert [(best_f.shape, m, n) for best_f, m, n in seen] == [((2,), 2, 4)] * 2


def test_arguments_are_checked():
    with pytest.raises(SettingError, match="`acquisition` must be a function, got 'qEI'"):
        BotorchSuggester(acquisition="qEI")
    with pytest.raises(SettingError, match="`kernel` must be a gpytorch kernel, got 'rbf'"):
        BotorchSuggester(kernel="rbf")
    with pytest.raises(SettingError, match=r"`n_initial` must be .* got 0"):
        BotorchSuggester(n_initial=0)


def test_acquisition_functions_of_several_points_are_refused():
    suggester = BotorchSuggester(
        acquisition=lambda model, *_: qKnowledgeGradient(model, num_fantasies=2), n_initial=2
    )
    study = Study(SQUARE, suggester=suggester, device="cpu")
    with pytest.raises(
        SettingError, match="must make a botorch acquisition function of single points, got a qKnow"
    ):
        study.optimize(loss, 3, progress=False)


def test_what_botorch_cannot_do_is_random_and_says_so():
    def acquisition(model, best_f, X, pending):
        raise NotPSDError("the user's kernel is none")

    suggester = BotorchSuggester(acquisition=acquisition, n_initial=2)
    study = Study(SQUARE, suggester=suggester, device="cpu").optimize(loss, 3, progress=False)
    assert study.trials[2].info == {"source": "random", "fallback": "the user's kernel is none"}
