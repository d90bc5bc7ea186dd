from reports import published


def test_rows_come_best_first_and_say_which_protocol():
    rows = published.rows_for("geneval")
    assert len(rows) == 37
    overall = [row.overall for row in rows]
    assert overall == sorted(overall, reverse=True)
    flux = {row.is_rewritten: row.overall for row in rows if row.model == "FLUX.1-dev"}
    assert flux == {False: 0.66, True: 0.82}
    assert all(row.source for row in rows)


def test_a_task_without_published_figures_has_none():
    assert published.rows_for("mme_stickers") == []
