"""The HTTP surface: parse a request, call a service, encode the answer. Nothing here knows how a model runs.

::

    app ──► page · operations · models · images · open_inference     one surface each; they do not know each other
     │         │
     │      handling · answers · openapi                       what surfaces share
     │         │
     └──► context · access · http_metrics                      layers around every request
               │
            body · multipart · query · negotiate ──► errors ──► json
"""
