"""What a notebook sees, from a real kernel."""

import sys

import pytest
from jupyter_client.manager import KernelManager

SETUP = """
import time, gpbo
study = gpbo.Study({"x": gpbo.Float(0, 1)}, suggester=gpbo.RandomSuggester(), name="<live>")
started = time.monotonic()

def objective(config):
    if len(study.trials) == 4 and slow:
        print("waiting", flush=True)
        time.sleep(60)
    return config["x"]
"""

STATES = "' '.join(t.state for t in study.trials)"


class Kernel:
    def __init__(self, manager):
        self.manager = manager
        self.client = manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run(self, code, interrupt_at=None):
        """Every message that came of a cell, but its beginning and its end."""
        asked, messages = self.client.execute(code), []
        while True:
            message = self.client.get_iopub_msg(timeout=120)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != asked:
                continue
            if kind == "status" and content["execution_state"] == "idle":
                return messages
            if kind not in ("status", "execute_input"):
                messages.append((kind, content))
            if interrupt_at is not None and interrupt_at in content.get("text", ""):
                self.manager.interrupt_kernel()
                interrupt_at = None

    def value(self, code):
        [(kind, content)] = self.run(code)
        assert kind == "execute_result", content
        return content["data"]["text/plain"]


@pytest.fixture(scope="module")
def kernel():
    manager = KernelManager()
    manager.kernel_spec.argv[0] = sys.executable
    manager.start_kernel()
    kernel = Kernel(manager)
    assert kernel.run(SETUP) == []
    yield kernel
    kernel.client.stop_channels()
    manager.shutdown_kernel(now=True)
    manager.cleanup_resources()


def test_an_interrupted_cell_leaves_a_study_to_go_on_with(kernel):
    *_, (kind, content) = kernel.run("slow = True; study.optimize(objective, 8)", interrupt_at="waiting")
    assert (kind, content["ename"]) == ("error", "KeyboardInterrupt")
    assert kernel.value(STATES) == "'complete complete complete running'"
    assert kernel.value("time.monotonic() - started < 50") == "True"
    config = kernel.value("study.trials[3].config")
    kernel.run("slow = False; study.optimize(objective, 8)")
    assert kernel.value(STATES) == repr(" ".join(["complete"] * 8))
    assert kernel.value("study.trials[3].config") == config


def test_progress_is_one_line_that_is_written_over(kernel):
    messages = kernel.run("study.optimize(objective, 500); None")
    first, *rest = messages
    assert first[0] == "display_data"
    assert {kind for kind, _ in rest} == {"update_display_data"}
    assert len({content["transient"]["display_id"] for _, content in messages}) == 1
    assert len(messages) < 100  # of 500 trials
    last = messages[-1][1]["data"]
    assert "500/500" in last["text/plain"]
    assert last["text/html"].startswith("<pre>&lt;live&gt;: 100%")
    assert kernel.run("study.optimize(objective, 501, progress=False); None") == []


def test_an_interrupted_cell_with_workers(kernel):
    code = "study = gpbo.Study({'x': gpbo.Float(0, 1)}, suggester=gpbo.RandomSuggester())\n" + (
        "def patient(config): time.sleep(0.05); return config['x']\n"
        "def say(study, trial):\n    if trial.number == 1: print('two', flush=True)\n"
        "study.optimize(patient, 400, workers=2, callbacks=[say], progress=False)"
    )
    *_, (kind, content) = kernel.run(code, interrupt_at="two")
    assert (kind, content["ename"]) == ("error", "KeyboardInterrupt")
    kernel.run("n = len(study.trials); study.optimize(patient, n + 2, progress=False)")
    assert kernel.value("{str(t.state) for t in study.trials}, len(study.trials) == n + 2") == (
        "({'complete'}, True)"
    )


def test_figures_and_tables_end_a_cell(kernel):
    assert kernel.run("from gpbo.analysis import plots") == []
    [(kind, content)] = kernel.run("plots.parallel(study)")
    assert "application/vnd.plotly.v1+json" in content.get("data", {}), (kind, content)
    for what in ("study", "study.space", "study.best"):
        [(_, content)] = kernel.run(what)
        assert content["data"]["text/html"].startswith(("<p>Study", "<table>"))
