"""A program for a Confinement: renders a template that comes with its question."""

import json

from spiketrain.serving.request import template_rendering

WARM = b'["{{ messages[0].content }}", "a"]'


def load(setup):
    def answer(question):
        source, content = json.loads(question)
        asked = json.loads(template_rendering.WARM)
        asked["messages"] = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": content},
            {"role": "user", "content": ""},
        ]
        render = template_rendering.load(template_rendering.setup_of(source, {"bos_token": "<s>"}))
        return render(json.dumps(asked).encode())

    return answer
