"""What the model of a run knows of the task: gathered from the run's files, and measured."""

from __future__ import annotations

import torch

from thresher.auditing.prepare import Job
from thresher.auditing.run import RunDirectory
from thresher.evaluate.knowledge import Knowledge, measure_knowledge
from thresher.evaluate.likelihood import AnswerKnowledge, measure_answers
from thresher.model.adapters import without_adapter
from thresher.model.predict import predict, read_predictions, write_predictions
from thresher.tensors import read_tensors


def ask_before_training(job: Job, run_dir: RunDirectory) -> None:
    """Keep what the model as it came says of the clean answers, or of an adapter trained elsewhere what its base says.

    A run that goes on does not ask again. Nothing is asked of a model that was fine-tuned whole: what it was before is
    not known.
    """
    if not job.compares_answers or run_dir.as_it_came.exists():
        return
    with without_adapter(job.subject.model):
        said = predict(job.subject, job.encoded["query"], job.config.rows_a_pass)
    write_predictions(run_dir.as_it_came, {"query": said})


def knowledge_of(job: Job, run_dir: RunDirectory) -> Knowledge | AnswerKnowledge | None:
    """What the model of the first round knows by the clean queries; None where these have neither class nor answer."""
    query = job.encoded["query"]
    if not isinstance(query.labels, torch.Tensor):
        now = read_predictions(run_dir.predictions, "query")
        before = read_predictions(run_dir.as_it_came, "query") if job.compares_answers else None
        trained_here = job.subject.kind == "lora"
        return measure_answers(now, before, query.labels, query.row_loss, trained_here=trained_here)
    return _of_classes(job, run_dir) if len(job.subject.classes) > 1 else None


def _of_classes(job: Job, run_dir: RunDirectory) -> Knowledge:
    truth = job.encoded["query"].classes.numpy()
    outputs = read_predictions(run_dir.predictions, "query").outputs.double().numpy()
    opinions = read_tensors(run_dir.opinions)[0] if run_dir.opinions.exists() else {}
    probe = opinions["probe"][-len(truth) :].numpy() if "probe" in opinions and not job.config.quick else None
    names = {number: name for name, number in job.subject.classes.items()}
    return measure_knowledge(
        outputs, truth, probe, [names.get(number, str(number)) for number in range(outputs.shape[1])]
    )
