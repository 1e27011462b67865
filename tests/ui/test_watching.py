from studio.ui.watching import Audience, number_of, watch, watched


def test_a_ticket_says_what_is_watched_and_newer_ones_have_greater_numbers():
    tickets = [watch("job", "a"), watch("job", "a"), watch("example", 3)]
    assert [watched(ticket) for ticket in tickets] == [("job", "a"), ("job", "a"), ("example", "3")]
    numbers = [number_of(ticket) for ticket in tickets]
    assert numbers == sorted(set(numbers)) and number_of("job:a") == number_of(None) == 0
    assert watched(None) == ("", "")


def test_the_newest_of_a_page_is_newest_in_whatever_order_they_arrive():
    audience = Audience()
    first = audience.enter("page", 5)
    assert first()
    late = audience.enter("page", 4)  # asked for before the first, and overtaken
    assert first() and not late()
    other = audience.enter("another page", 1)
    newer = audience.enter("page", 6)
    assert newer() and other() and not first() and not late()
