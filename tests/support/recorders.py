"""What stands in for CUDA graphs on a CPU, and what notes how work is shared out."""

import threading

import torch

from robaudit.engine import several
from robaudit.engine.captured import Captured


class Again:
    """Replays the work and writes what it gives where the first result was, as a graph does."""

    def __init__(self):
        self.recorded = self.replayed = self.warmed = 0

    def warm(self, work):
        self.warmed += 1
        work()

    def record(self, work):
        self.recorded += 1
        out = work()
        kept = out.detach()

        def replay():
            self.replayed += 1
            with torch.no_grad():
                kept.copy_(work().detach())

        return kept, replay


def noted_rounds(monkeypatch):
    """How many pieces each round over the devices has, as they come."""
    seen, usual = [], several._at_once

    def counted(devices, work):
        seen.append(len(work))
        return usual(devices, work)

    monkeypatch.setattr(several, "_at_once", counted)
    return seen


def noted_threads(monkeypatch):
    """The names of the threads that run a network, as they come."""
    seen = set()
    for name in ("logits", "pair", "plain"):
        usual = getattr(Captured, name)

        def noted(self, tile, usual=usual):
            seen.add(threading.current_thread().name)
            return usual(self, tile)

        monkeypatch.setattr(Captured, name, noted)
    return seen
