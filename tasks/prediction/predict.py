"""Predict every row of some files with a SavedModel: read ahead in one thread, predict, write behind in another.

Memory is bounded: a few chunks of rows at a time. What is finished is kept in parts, from which a killed run goes on.
"""

import io
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from runtime.atomic_outputs import remove
from runtime.disk import refuse_unless_file
from runtime.errors import UserError
from tasks.prediction.answers import dictionary_columns, output_names, output_schema, to_output
from tasks.prediction.checks import REJECTED, rejected
from tasks.prediction.chunks import (
    CHUNK_BYTES,
    Chunk,
    Place,
    Plan,
    call_rows,
    in_calls,
    in_order,
    make_chunks,
    make_plan,
    position,
    told,
)
from tasks.prediction.compiled import make_answer
from tasks.prediction.inputs import Source, find_sources, printable, refuse_pictures_for, start_hashing, unchanged
from tasks.prediction.parts import Part, RefusedRowError, begin, flush, locked_folder, publish, read_part, write_part
from tasks.prediction.progress import Done, Report, summary
from tasks.prediction.record import Input, PredictionRecord, write_record
from tasks.prediction.saved_model import LoadedModel
from tasks.prediction.stream import ahead, behind, side_by_side

logger = logging.getLogger(__name__)

FORMAT = 3  # of the parts
AHEAD, BEHIND = 2, 2  # chunks that wait between the threads
CALLS = 3  # of the model at once: between two calls one core would have nothing to do
COMPRESSION, LEVEL = "zstd", 1
ANSWER_NOT_FINITE = "the model's answer is not a finite number"


def predict(
    load: Callable[[], LoadedModel],
    given: str,
    output: Path,
    keep: Sequence[str] = (),
    strict: bool = False,
    *,
    report: Report | None = None,
    tell: Callable[[str], None] = logger.info,
) -> PredictionRecord:
    """Predict every row of the input.

    Args:
        load: returns the model; called once all else is in order.
        given: the input, see `find_sources`.
        output: the Parquet file to write.
        keep: columns of the input that the output has, too.
        strict: stop at the first row that cannot be used.
        report: called with each finished chunk.
        tell: called with what the user should know.

    Raises:
        UserError: the input or the output cannot be used, or with `strict` a row.
    """
    sources = find_sources(given)
    refuse_output(output, sources)
    with locked_folder(output) as folder:
        model = load()
        refuse_pictures_for(model, sources)
        refuse_unusable_inputs(model)
        most = call_rows(model)
        call = make_answer(model, most, at_once=sum(source.size for source in sources) > CHUNK_BYTES)
        done = Done()
        with unchanged(sources) as stamp:
            checksums = start_hashing(sources)
            plan = make_plan(model, sources, [*dict.fromkeys(keep)])
            schema = output_schema(model, plan.keep)
            refuse_unwritable_columns(schema)
            there, changed = begin(folder, manifest(model, plan, most, strict, stamp))
            if changed:
                tell(f"the unfinished run of {output} had another {changed}: starting anew.")
            with writers(folder, schema) as (write, files):
                number, start = resume(folder, there, schema, write, done, tell)

                def finish(made: tuple[int, Chunk, dict[str, np.ndarray]]) -> None:
                    at, chunk, answers = made
                    part = to_part(model, schema, chunk, answers)
                    if strict and part.rejected.num_rows:
                        refuse(part.rejected)
                    write_part(folder, at, part)
                    write(part)
                    count(done, part)
                    if report:
                        report(done)

                def answer(chunk: Chunk) -> dict[str, np.ndarray]:
                    return in_calls(model, call, chunk.columns, most)

                chunks = make_chunks(plan, sources, start)
                with (
                    ahead(chunks, AHEAD) as ready,
                    behind(finish, BEHIND) as hand,
                    # Closed here: closed by the garbage collector, in whatever thread, its threads' end can block.
                    closing(side_by_side(answer, ready, CALLS)) as answers,
                ):
                    for at, (chunk, made) in enumerate(answers, number):
                        hand((at, chunk, made))
            record = to_record(model, sources, checksums(), done)
        publish_all(output, folder, files, record)
    tell(summary(done, output, rejected_file(output)))
    return record


def manifest(model: LoadedModel, plan: Plan, most: int, strict: bool, stamp: str) -> dict[str, Any]:
    """Return what the parts depend on, by the word for it.

    Args:
        model: that predicts.
        plan: what is read.
        most: rows of a call.
        strict: whether every row must be usable.
        stamp: of the input.
    """
    return {
        "model": [model.name, model.version, model.sha256],
        "option": {"keep": [*plan.keep], "strict": strict},
        "input": stamp,
        "version of the program": [FORMAT, plan.rows, most, version("tensorflow"), version("pyarrow")],
    }


def resume(
    folder: Path,
    there: int,
    schema: pa.Schema,
    write: Callable[[Part], None],
    done: Done,
    tell: Callable[[str], None],
) -> tuple[int, Place]:
    """Write the parts of an earlier run; return how many these are, and where the next chunk begins.

    A damaged part and those after it are made again.

    Args:
        folder: of the parts.
        there: how many there are.
        schema: of the output.
        write: writes a part to the output.
        done: gets what the parts hold.
        tell: called with what the user should know.
    """
    number, start = 0, Place(0, 0)
    while number < there and (part := read_part(folder, number, schema)):
        write(part)
        count(done, part)
        number, start = number + 1, part.next
    done.resumed, done.resumed_share = done.rows, done.share
    if number:
        tell(f"resuming: {number:,} of about {round(number / done.share):,} parts are there.")
    return number, start


def rejected_file(output: Path) -> Path:
    return output.with_name(f"{output.stem}.rejected.parquet")


def refuse_output(output: Path, sources: Sequence[Source]) -> None:
    """Raise UserError where the output cannot be written, or would replace the input."""
    if output.suffix != ".parquet" or not output.stem:
        raise UserError(f"{output}: the output is a Parquet file; give a name that ends in .parquet.")
    made = (output, rejected_file(output), output.with_suffix(".json"))
    for path in made:
        refuse_unless_file(path)
    for source in sources:
        for path in made:
            if path.exists() and source.path.exists() and path.samefile(source.path):
                raise UserError(f"{path} is both an input and an output. Write the output to another folder.")


def refuse_unusable_inputs(model: LoadedModel) -> None:
    for name, tensor in model.inputs.items():
        if tensor.dtype.kind not in "iuf":
            raise UserError(f"{model.name} takes {name} as {tensor.dtype}, and only numbers can be given.")


def refuse_unwritable_columns(schema: pa.Schema) -> None:
    """Raise UserError for a kept column of a type that Parquet does not have."""
    for field in schema:
        try:
            pq.write_table(pa.schema([field]).empty_table(), io.BytesIO())
        except pa.ArrowException as error:
            raise UserError(f"--keep {field.name}: Parquet cannot hold {field.type} ({error}).") from None


def refuse(records: pa.RecordBatch) -> None:
    [first] = records.slice(0, 1).to_pylist()
    raise RefusedRowError(f"{told(first)}. Nothing was published, because of --strict.")


def to_part(model: LoadedModel, schema: pa.Schema, chunk: Chunk, answers: Mapping[str, np.ndarray]) -> Part:
    """Return the finished part of a chunk.

    Args:
        model: that has answered.
        schema: of the output.
        chunk: the rows.
        answers: to them.
    """
    records, good = [chunk.rejected] if chunk.rejected.num_rows else [], None
    finite = np.ones(len(chunk.rows), bool)
    for name in output_names(model):
        values = answers[name].reshape(len(finite), -1) if len(finite) else answers[name]
        wrong = finite & ~np.isfinite(values).all(axis=1) if len(finite) else ~finite
        if wrong.any():
            at = np.flatnonzero(wrong)
            files = [chunk.source.name_of(row) for row in chunk.rows[at]]
            shown = [str(values[row][~np.isfinite(values[row])][0]) for row in at]
            records.append(rejected(files, position(chunk.source, chunk.rows[at]), name, shown, ANSWER_NOT_FINITE))
            finite[at] = False
    if not finite.all():
        good = np.flatnonzero(finite)
    output = to_output(model, schema, chunk, answers, good)
    return Part(output, in_order(records), chunk.next, chunk.share, chunk.unreadable)


def count(done: Done, part: Part) -> None:
    """Add a part to what is done. The record of a damaged file is not one of a row."""
    done.predicted += part.rows.num_rows
    done.rejected += part.rejected.num_rows - part.rejected["row"].null_count
    done.unreadable += part.unreadable
    done.share = part.share
    if part.rejected.num_rows:
        done.reasons += Counter(part.rejected["reason"].to_pylist())


def to_record(model: LoadedModel, sources: Sequence[Source], checksums: Sequence[str], done: Done) -> PredictionRecord:
    """Return what the JSON file holds.

    Args:
        model: that has predicted.
        sources: the input.
        checksums: of the sources.
        done: what was done.
    """
    seconds = done.seconds
    return PredictionRecord(
        model=model.name,
        version=model.version,
        saved_model_sha256=model.sha256,
        inputs=[
            Input(path=printable(str(source.path)), sha256=checksum, bytes=source.size)
            for source, checksum in zip(sources, checksums, strict=True)
        ],
        rows=done.rows,
        predicted=done.predicted,
        rejected=done.rejected,
        unreadable_files=done.unreadable,
        seconds=seconds,
        rows_per_second=(done.rows - done.resumed) / max(seconds, 1e-9),
    )


@contextmanager
def writers(folder: Path, schema: pa.Schema) -> Iterator[tuple[Callable[[Part], None], list[Path]]]:
    """Yield what writes a part to the two Parquet files, and the files: that of rejected rows, if any, comes second.

    Args:
        folder: that gets the files.
        schema: of the output.
    """
    files = [folder / "predicted.parquet", folder / "rejected.parquet"]
    with ExitStack() as stack:
        output = stack.enter_context(
            pq.ParquetWriter(
                files[0],
                schema,
                compression=COMPRESSION,
                compression_level=LEVEL,
                use_dictionary=dictionary_columns(schema),
                # Those of names cost more than all else that is written.
                write_statistics=[name for name in schema.names if not pa.types.is_dictionary(schema.field(name).type)],
                column_encoding={"row": "DELTA_BINARY_PACKED"},
            )
        )
        records = None

        def write(part: Part) -> None:
            nonlocal records
            if part.rows.num_rows:
                output.write_batch(part.rows, row_group_size=part.rows.num_rows)
            if part.rejected.num_rows:
                if records is None:
                    records = stack.enter_context(
                        pq.ParquetWriter(files[1], REJECTED, compression=COMPRESSION, compression_level=LEVEL)
                    )
                records.write_batch(part.rejected, row_group_size=part.rejected.num_rows)

        yield write, files
    if records is None:
        files.pop()


def publish_all(output: Path, folder: Path, files: list[Path], record: PredictionRecord) -> None:
    """Put the finished files in their places, the output last, and remove the parts.

    Args:
        output: the place of the predictions.
        folder: of the parts.
        files: of `writers`.
        record: for the JSON file.
    """
    described = folder / "record.json"
    write_record(described, record)
    if len(files) > 1:
        publish(files[1], rejected_file(output))
    else:
        rejected_file(output).unlink(missing_ok=True)
    publish(described, output.with_suffix(".json"))
    publish(files[0], output)
    flush(output.parent)
    remove(folder)
