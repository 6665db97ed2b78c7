import pickle
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpbo.errors import ObjectiveError
from gpbo.objective import CommandObjective, FunctionObjective, find_objective, pick

NAMES = ["lr", "opt", "momentum", "amp"]


def run(tmp_path, code, config=None, metrics=()):
    """What a command made of Python code gives."""
    (tmp_path / "job.py").write_text(code)
    objective = CommandObjective((sys.executable, "job.py", "${args_json}"), str(tmp_path), metrics)
    return objective(config or {})


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module beside the user, under a name that no other test has."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"user_{tmp_path.name.replace('-', '_')}"

    def write(text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    sys.modules.pop(name, None)


def test_a_function_is_found_beside_the_user_also_after_pickling(tmp_path, module):
    name = module("def objective(config): return {'loss': config['x'] + 1, 'acc': 0}\n")
    objective = FunctionObjective(f"{name}:objective", str(tmp_path), ("loss",))
    assert pickle.loads(pickle.dumps(objective))({"x": 2}) == 3


def test_a_function_works_in_a_worker_process(tmp_path):
    (tmp_path / "only_here.py").write_text("def objective(config): return config['x'] + 1\n")
    objective = pickle.dumps(FunctionObjective("only_here:objective", str(tmp_path)))
    code = f"import pickle; print(pickle.loads({objective!r})({{'x': 2}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.stdout == "3\n", done.stderr


def test_a_function_may_be_nested(tmp_path, module):
    name = module("class A:\n    @staticmethod\n    def f(config): return 5\n")
    assert FunctionObjective(f"{name}:A.f", str(tmp_path))({}) == 5


@pytest.mark.parametrize(
    ("text", "attribute", "message"),
    [
        ("def objective(c): return 1", "objectiv", "has no 'objectiv'. Did you mean 'objective'"),
        ("objective = 3", "objective", "must be a function of a config, got 3."),
        ("1 / 0", "objective", "importing .* raised ZeroDivisionError: division by zero"),
        ("import not_installed_anywhere", "objective", "importing .* failed: No module named 'not_installed"),
        ("def (", "objective", "importing .* raised SyntaxError"),
    ],
)
def test_a_function_that_is_not_there(tmp_path, module, text, attribute, message):
    name = module(text)
    with pytest.raises(ObjectiveError, match=message):
        FunctionObjective(f"{name}:{attribute}", str(tmp_path)).resolve()


def test_a_module_that_is_not_there(tmp_path, module):
    name = module("")
    with pytest.raises(ObjectiveError, match=rf"there is no module '{name}x'.*Did you mean '{name}'"):
        FunctionObjective(f"{name}x:objective", str(tmp_path)).resolve()
    with pytest.raises(ObjectiveError, match=r"there is no module 'no_such_package\.inside'"):
        FunctionObjective("no_such_package.inside:objective", str(tmp_path)).resolve()


def test_pick():
    assert pick(3.5, ["loss"]) == 3.5
    assert pick({"loss": 1, "acc": 2}, ["acc"]) == 2
    assert pick({"loss": 1, "acc": 2}, ["acc", "loss"]) == [2, 1]
    assert pick({"loss": 1, "ms": 3}, ["loss"], ["ms"]) == (1, {"ms": 3})
    assert pick({"loss": 1, "acc": 2, "ms": 3}, ["loss", "acc"], ["ms"]) == ([1, 2], {"ms": 3})
    assert pick((1, {"ms": 3}), ["loss"], ["ms"]) == (1, {"ms": 3})
    with pytest.raises(ObjectiveError, match=r"but the study's outcome is 'mss'. Did you mean 'ms'\?"):
        pick({"loss": 1, "ms": 3}, ["loss"], ["mss"])
    with pytest.raises(ObjectiveError, match=r"gave \['loss'\]; say which"):
        pick({"loss": 1}, [])
    with pytest.raises(ObjectiveError, match=r"metric is 'los'\. Did you mean 'loss'"):
        pick({"loss": 1}, ["los"])


@pytest.mark.parametrize(
    ("line", "config", "command"),
    [
        ("sh t --lr {lr}", {"lr": 1e-5}, ["sh", "t", "--lr", "1e-05"]),
        ("sh t --lr={lr} --o {opt}", {"lr": 1.0, "opt": "a b"}, ["sh", "t", "--lr=1.0", "--o", "a b"]),
        ("sh t --momentum {momentum} --lr {lr}", {"lr": 2}, ["sh", "t", "--lr", "2"]),
        ("sh t --momentum={momentum} {lr}", {"lr": 2}, ["sh", "t", "2"]),
        ("sh t {momentum} {lr}", {"lr": 2}, ["sh", "t", "2"]),
        ("sh t --x {lr}-{momentum}", {"lr": 2}, ["sh", "t", "--x"]),
        ("sh '{{{lr}}}' '{{}}'", {"lr": 2}, ["sh", "{2}", "{}"]),
        ("sh {amp} {opt}", {"amp": True, "opt": None}, ["sh", "True", "None"]),
        ("sh ${args}", {"lr": 2, "amp": False}, ["sh", "--lr=2", "--amp=False"]),
        ("sh ${args_no_hyphens}", {"lr": 2}, ["sh", "lr=2"]),
        ("sh ${args_no_boolean_flags}", {"lr": 2, "amp": True}, ["sh", "--lr=2", "--amp"]),
        ("sh ${args_no_boolean_flags}", {"amp": False}, ["sh"]),
        ("sh ${args_json}", {"lr": 2, "opt": "x"}, ["sh", '{"lr": 2, "opt": "x"}']),
    ],
)
def test_placeholders(line, config, command):
    objective = find_objective(line, NAMES, directory=".")
    assert objective.command(config) == command


@given(value=st.text())
def test_a_value_is_one_argument_whatever_it_holds(value):
    objective = find_objective("sh t --opt {opt} --opt={opt}", NAMES, directory=".")
    assert objective.command({"opt": value}) == ["sh", "t", "--opt", value, f"--opt={value}"]


def test_values_do_not_reach_a_shell(tmp_path):
    code = "import sys, json; print(json.dumps([len(json.loads(sys.argv[1])['opt'])]))"
    assert run(tmp_path, code, {"opt": "$(touch evil); `touch evil`"}) == [27]
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "must be 'module:function' or a command line, got nothing"),
        ("sh 'a", "cannot be read as a command line: No closing quotation"),
        ("sh {momentun}", r"\{momentun\} names no parameter of the space\. Did you mean 'momentum'"),
        ("sh '{\"a\": 1}'", "names no parameter of the space. Write {{ and }}"),
        ("sh ${arsg}", r"'\$\{arsg\}' is not known in a command.*Did you mean"),
        ("{opt} x", "a command's program must be fixed"),
        ("no-such-program x", "neither 'module:function' nor a command: no program 'no-such-program'"),
        ("a.py:f", "must name a module, not a file; write 'a:f'"),
    ],
)
def test_a_command_that_cannot_be(line, message):
    with pytest.raises(ObjectiveError, match=message):
        find_objective(line, NAMES, directory=".")


@pytest.mark.parametrize(
    ("printed", "metrics", "value"),
    [
        ("0.5", (), 0.5),
        ("epoch 1\n0.25\ndone", (), 0.25),
        ('{"loss": 1}\n{"loss": 2}\nbye', ("loss",), 2),
        ('{"loss": 1, "acc": 3}', ("acc", "loss"), [3, 1]),
        ("[1, 2]\ntrue\nnull\n\"text\"", (), [1, 2]),
        ("  7  ", (), 7),
    ],
)  # fmt: skip
def test_the_last_json_line_is_the_result(tmp_path, printed, metrics, value):
    assert run(tmp_path, f"print({printed!r})", metrics=metrics) == value


def test_nan_reaches_the_study(tmp_path):
    assert run(tmp_path, "print('NaN')") != run(tmp_path, "print('NaN')")


def test_much_output_does_not_block(tmp_path):
    code = "import sys\nfor stream in (sys.stdout, sys.stderr): stream.write('y' * 3_000_000)\nprint('\\n4')"
    assert run(tmp_path, code) == 4


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('hello')", r"(?s)end of stdout:\nhello\n.*printed no result; the last JSON line.*'loss'"),
        ("pass", r"(?s)stdout was empty\..*printed no result"),
        ("import sys; print(1); sys.exit(3)", r"(?s)the end of stdout:\n1\n.*exited with code 3\."),
        (
            "print(1); raise ValueError('boom')",
            r"(?s)the end of stderr:.*ValueError: boom\n.*exited with code 1",
        ),
        ("import os; os.kill(os.getpid(), 9)", r"was killed by signal 9 \(SIGKILL\)\."),
    ],
)
def test_a_command_that_fails(tmp_path, code, message):
    with pytest.raises(ObjectiveError, match=message):
        run(tmp_path, code, metrics=("loss",))


def test_a_command_that_vanished(tmp_path):
    objective = CommandObjective(("./gone",), str(tmp_path))
    with pytest.raises(ObjectiveError, match=r"could not be started: .*No such file"):
        objective({})


def test_an_interrupt_kills_the_commands_children_too(tmp_path):
    (tmp_path / "child.py").write_text(
        "import pathlib, time\npathlib.Path('alive').touch()\ntime.sleep(60)\n"
    )
    (tmp_path / "job.py").write_text(
        "import subprocess, sys\nchild = subprocess.Popen([sys.executable, 'child.py'])\n"
        "open('pid', 'w').write(str(child.pid))\nchild.wait()\n"
    )
    objective = CommandObjective((sys.executable, "job.py"), str(tmp_path))
    code = f"import pickle; pickle.loads({pickle.dumps(objective)!r})({{}})"
    driver = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    while not (tmp_path / "alive").exists():
        time.sleep(0.02)
    driver.send_signal(signal.SIGINT)
    _, complaints = driver.communicate()
    assert b"KeyboardInterrupt" in complaints
    pid = int((tmp_path / "pid").read_text())
    while _runs(pid):  # it is an orphan now, and gone once it is reaped
        time.sleep(0.02)


def _runs(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
    return bool(state.strip()) and not state.startswith("Z")
