from reports import published


def test_rows_come_best_first_and_say_which_protocol():
    rows = published.rows_for("geneval")
    assert len(rows) == 37
    overall = [row.overall for row in rows]
    assert overall == sorted(overall, reverse=True)
    flux = {row.is_rewritten: row.overall for row in rows if row.model == "FLUX.1-dev"}
    assert flux == {False: 0.66, True: 0.82}
    assert all(row.source for row in rows)


def test_wises_editions_have_rows_of_their_own_with_every_group():
    legacy, verified = published.rows_for("wise"), published.rows_for("wise_verified")
    groups = ["culture", "time", "space", "biology", "physics", "chemistry"]
    assert all(group in row.scores for row in verified for group in groups)
    assert {row.overall for row in legacy if row.model == "GPT-4o"} == {0.8}
    assert {row.overall for row in verified if row.model == "Janus-Pro-7B"} == {0.334}
    assert not {row.source for row in legacy} & {row.source for row in verified}


def test_a_task_without_published_figures_has_none():
    assert published.rows_for("mme_stickers") == []
