"""Lets the openai package of PyPI speak a text into a file. Prints what an application would have seen, as JSON.

Reads OPENAI_BASE_URL, OPENAI_API_KEY (as the package itself does), TEXT and OUTPUT.
"""

import json
import os
import sys

import openai


def main():
    client = openai.OpenAI(max_retries=0)
    wanted = {"model": "auto", "voice": "alloy", "response_format": "wav", "speed": 1.25}
    speech = client.audio.speech
    with speech.with_streaming_response.create(input=os.environ["TEXT"], **wanted) as spoken:
        spoken.stream_to_file(os.environ["OUTPUT"])
        told = {
            "type": spoken.headers.get("content-type"),
            "units": spoken.headers.get("x-airi-billed-units"),
            "timing": spoken.headers.get("server-timing"),
        }
    try:
        speech.create(input="   ", **wanted)
    except openai.APIStatusError as error:
        told["refused"] = {"status": error.status_code, "kind": type(error).__name__}
    json.dump(told, sys.stdout)


main()
