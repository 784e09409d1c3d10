"""General views of a readout: text prompts that ask about an input from several sides, whatever the task is.

Under each of them the model's scores of the same texts differ a little. A readout weighs the answers under all of them,
which is worth more than most searches for a single prompt. The list was written once, by thinking of what one can ask
about a text. No data set was looked at, and nothing was chosen by a result, so it favours no task.
"""

GENERAL_VIEWS: tuple[str, ...] = (
    "",
    # What it is about
    *("Topic:", "This is about", "What is this about?", "The subject of this text is"),
    # What kind of thing it is
    *("Category:", "What kind of thing is this?", "Classify this text:"),
    # What it wants or answers
    *("Question:", "The answer is", "What is asked for here?", "Who, what, where, when, why or how many?"),
    # What the writer thinks
    *("Is this good or bad?", "The writer feels"),
    # The whole in short
    *("In one word:", "In short:"),
)
"""Sixteen views, the first without a prompt."""
