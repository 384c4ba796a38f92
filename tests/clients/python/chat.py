"""One conversation through the openai package of PyPI. Prints what an application would have seen, as JSON.

Reads OPENAI_BASE_URL, OPENAI_API_KEY (as the package itself does) and POOR_TOKEN.
"""

import json
import os
import sys

import openai

MESSAGES = [{"role": "user", "content": "hello"}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "the weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def usage_of(usage):
    return {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens} if usage else None


def plain(client):
    answer = client.chat.completions.create(model="auto", messages=MESSAGES)
    choice = answer.choices[0]
    return {"content": choice.message.content, "finish": choice.finish_reason, "usage": usage_of(answer.usage)}


def streamed(client, **options):
    told = {"content": "", "finish": None, "usage": None, "bare": 0}
    for event in client.chat.completions.create(model="auto", messages=MESSAGES, stream=True, **options):
        if event.usage:
            told["usage"] = usage_of(event.usage)
        if not event.choices:
            told["bare"] += 1
            continue
        choice = event.choices[0]
        told["content"] += choice.delta.content or ""
        told["finish"] = choice.finish_reason or told["finish"]
    return told


def told_call(choice):
    call = choice.message.tool_calls[0]
    return {
        "id": call.id,
        "name": call.function.name,
        "arguments": json.loads(call.function.arguments),
        "finish": choice.finish_reason,
    }


def tool_call(client):
    return told_call(client.chat.completions.create(model="auto", messages=MESSAGES, tools=TOOLS).choices[0])


def streamed_tool_call(client):
    with client.chat.completions.stream(model="auto", messages=MESSAGES, tools=TOOLS) as stream:
        return told_call(stream.get_final_completion().choices[0])


def refusal(client):
    try:
        client.chat.completions.create(model="auto", messages=MESSAGES, tools=TOOLS)
    except openai.APIStatusError as error:
        return {"status": error.status_code, "body": error.response.json()}
    raise RuntimeError("the call was not refused")


def main():
    client = openai.OpenAI()
    told = {
        "plain": plain(client),
        "streamed": streamed(client),
        "streamedWithUsage": streamed(client, stream_options={"include_usage": True}),
        "tools": tool_call(client),
        "streamedTools": streamed_tool_call(client),
        "refused": refusal(openai.OpenAI(api_key=os.environ["POOR_TOKEN"])),
        "rejected": refusal(client),
    }
    json.dump(told, sys.stdout)


main()
