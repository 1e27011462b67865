from studio.ui.components.views import LatestPerSession, make_view_token, parse_view_token, token_number


def test_a_ticket_says_what_is_watched_and_newer_ones_have_greater_numbers():
    tickets = [make_view_token("job", "a"), make_view_token("job", "a"), make_view_token("example", 3)]
    assert [parse_view_token(ticket) for ticket in tickets] == [("job", "a"), ("job", "a"), ("example", "3")]
    numbers = [token_number(ticket) for ticket in tickets]
    assert numbers == sorted(set(numbers)) and token_number("job:a") == token_number(None) == 0
    assert parse_view_token(None) == ("", "")


def test_the_newest_of_a_page_is_newest_in_whatever_order_they_arrive():
    audience = LatestPerSession()
    first = audience.enter("page", 5)
    assert first()
    late = audience.enter("page", 4)  # asked for before the first, and overtaken
    assert first() and not late()
    other = audience.enter("another page", 1)
    newer = audience.enter("page", 6)
    assert newer() and other() and not first() and not late()
