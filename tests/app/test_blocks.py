"""Blocks of the report on a page: what a chart or a table says is told to those who cannot see it."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest


def test_charts_and_tables_have_their_caption_as_alternative_text() -> None:
    def script() -> None:
        import plotly.graph_objects as go

        from app.blocks import show_blocks
        from concept_tuning.report.blocks import Chart, Table

        chart = Chart(figure=go.Figure(), caption="What a chart says.")
        table = Table(columns=("a",), rows=(("1",),), caption="What a table says.")
        show_blocks([chart, table], key="blocks")

    page = AppTest.from_function(script, default_timeout=120).run()
    assert not page.exception
    assert page.get("plotly_chart")[0].proto.alt == "What a chart says."
    assert page.dataframe[0].proto.alt == "What a table says."
