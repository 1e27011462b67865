"""The views of the noise tab as plain JSON. A view holds every frame, so moving the time slider needs no request."""
