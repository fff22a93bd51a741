"""Search a tree of positions with `History`: save before a move, restore to take it back.

Fills a sudoku by trying. Prints what it proves; exits non-zero if it does not hold.
"""

import sys

import numpy as np

import dirtytrack
from dirtytrack.snapshot import History

PUZZLE = "53..7.... 6..195... .98....6. 8...6...3 4..8.3..1 7...2...6 .6....28. ...419..5 ....8..79"
rows, columns = np.divmod(np.arange(81), 9)
boxes = rows // 3 * 3 + columns // 3
peers = [(rows == rows[at]) | (columns == columns[at]) | (boxes == boxes[at]) for at in range(81)]


def prove(claim, holds):
    print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    if not holds:
        sys.exit(1)


def place(board, at, digit):
    board[peers[at], digit] = False  # a digit is taken from all that see it
    board[at] = False
    board[at, digit] = board[at, 9] = True  # the last column: filled


def solve(board, history, restored):
    open_cells = np.flatnonzero(~board[:, 9])
    if not len(open_cells):
        return True
    at = open_cells[-1]  # no clever choice: the tree is to be large
    state, copy = history.save(), board.copy()
    for digit in np.flatnonzero(board[at, :9]):
        place(board, at, digit)
        if solve(board, history, restored):
            return True
        history.restore(state)
        restored.append(np.array_equal(board, copy))
    history.drop(state)
    return False


board, restored = dirtytrack.empty((81, 10), bool), []
board[:, :9] = True
for at, digit in enumerate(PUZZLE.replace(" ", "")):
    if digit != ".":
        place(board, at, int(digit) - 1)
with History(None, board) as history:
    solved = solve(board, history, restored)
grid = board[:, :9].argmax(axis=1) + 1
prove(f"{len(restored)} positions were restored, each equal to a copy", len(restored) > 100 and all(restored))
units = [unit == n for unit in (rows, columns, boxes) for n in range(9)]
prove("each row, column and box has nine digits", solved and all(len(set(grid[u])) == 9 for u in units))
given = zip(PUZZLE.replace(" ", ""), map(str, grid), strict=True)
prove("and the given ones are where they were", all(digit in (".", here) for digit, here in given))
