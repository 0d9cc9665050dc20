"""Budgets of L_task: columns and remarks on compared rows."""

from madan.report.budgets import Budget, columns, note

SPENT = {"a": Budget(350, 2800), "b": Budget(190, 1520), "c": Budget(350, 2800)}


def test_columns_are_numbers_in_the_order_of_the_rows_and_dashes_where_unknown():
    found = columns(["b", "x", "a"], SPENT)
    assert found == {"L_task steps": ["190", "–", "350"], "L_task images": ["1520", "–", "2800"]}


def test_rows_of_one_budget_are_said_to_have_the_same():
    assert note("a", "c", SPENT) == "the same"


def test_note_says_by_how_much_two_budgets_differ():
    assert note("b", "a", SPENT) == "differs: 190 against 350 steps, 1520 against 2800 images"
    # As many steps of another batch are another budget, too.
    spent = {"a": Budget(350, 2800), "b": Budget(350, 1400)}
    assert note("a", "b", spent) == "differs: 350 against 350 steps, 2800 against 1400 images"


def test_unknown_budget_is_not_taken_for_the_same():
    assert note("x", "a", SPENT) == "unknown for x"
    assert note("x", "y", SPENT) == "unknown for x and y"
