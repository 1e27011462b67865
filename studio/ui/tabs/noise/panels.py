"""The noise tab's panels as HTML, and what is said in each: one sentence, the idea, the mathematics with its source.

Pure functions and texts. What moves is drawn into these places by the scripts in noise_views.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

_NAMES = {"forward": "Forward", "reverse": "Reverse", "compare": "Compare", "plane": "In the plane"}

_WORDS = {
    "forward": (
        "A picture drowns in noise, a little more at each of a thousand steps.",
        """<p>Every pixel is a number from −1 to 1. Make the picture a little weaker and add a few random
        numbers, and repeat: after enough steps nothing of the picture is left. Because Gaussian noise added to Gaussian
        noise is Gaussian again, all steps up to <i>t</i> can be taken at once: the picture times α plus random
        numbers times σ, where α and σ are what all these steps come to. A network is later shown such a mixture and
        asked what was mixed in; that is all its training.</p>
        <p>The schedule says how fast α falls. Watch the signal-to-noise ratio: a schedule that lingers where the
        picture is
        nearly gone, as the linear one does on small pictures, wastes its steps.</p>""",
        """<p>q(x<sub>t</sub> | x<sub>t−1</sub>) = N(√(1−β<sub>t</sub>) x<sub>t−1</sub>, β<sub>t</sub> I). With
        ᾱ<sub>t</sub> =
        ∏<sub>s≤t</sub> (1−β<sub>s</sub>), α<sub>t</sub> = √ᾱ<sub>t</sub> and σ<sub>t</sub> = √(1−ᾱ<sub>t</sub>):</p>
        <p class="nv-display">x<sub>t</sub> = α<sub>t</sub> x<sub>0</sub> + σ<sub>t</sub> ε, &nbsp; ε ~ N(0, I)</p>
        <p>so that E x<sub>t</sub> = α<sub>t</sub> x<sub>0</sub>, and over all pixels the variance is
        α<sub>t</sub>² Var(x<sub>0</sub>) +
        σ<sub>t</sub>². Since α² + σ² = 1 it stays 1 if Var(x<sub>0</sub>) = 1 (“variance preserving”): tick
        “standardize” to see it to the letter. SNR = α²/σ²; its logarithm is the one thing in which schedules
        differ.</p>
        <p class="nv-source">Ho, Jain &amp; Abbeel 2020, arXiv 2006.11239, equations 2 and 4; Nichol &amp; Dhariwal
        2021, arXiv
        2102.09672, equation 17; Kingma et al. 2021, arXiv 2107.00630, section 4.</p>""",
    ),
    "reverse": (
        "The network says what it takes for noise; the sampler removes a part of it, and asks again.",
        """<p>At each step the network sees x<sub>t</sub> and predicts. From one prediction follow two pictures:
        the noise ε̂ it
        believes was added, and the clean picture x̂<sub>0</sub> it believes lies beneath. At first x̂<sub>0</sub>
        is a blur, the mean of all pictures that could be meant, which guidance exaggerates; it sharpens as choices are
        made. The sampler does not jump to
        x̂<sub>0</sub>: it mixes it with x<sub>t</sub> to the next, lower level of noise, and our sampler also weighs
        in the x̂<sub>0</sub> of steps before.</p>
        <p>Guidance: the network is asked twice, with the words and without (or with those of a negative prompt). The
        difference is what the words change in x̂<sub>0</sub>; it is added several times over. Where the style is
        emphasized it is asked a third time, with the words but those for the style: what these change counts 1.25 times
        in the difference. In one pass the
        network, which was taught to, says at once what the two would come to.</p>
        <p>Where a part of the picture is known, x̂<sub>0</sub> is shown with it put back: a hole’s surroundings are
        not what the network sees through the noise, and an enlargement is made to shrink to the picture that it is
        of. What is sharpened when it is painted keeps its colours.</p>""",
        """<p>The network predicts v = α ε − σ x<sub>0</sub>, hence x̂<sub>0</sub> = α x<sub>t</sub> − σ v and ε̂ =
        σ x<sub>t</sub> + α
        v. With λ = log(α/σ) and h = λ<sub>next</sub> − λ, DPM-Solver++(2M) takes</p>
        <p class="nv-display">x<sub>next</sub> = (σ<sub>next</sub>/σ) x<sub>t</sub> + α<sub>next</sub> (1 −
        e<sup>−h</sup>) [(1 + 1/2r)
        x̂<sub>0</sub> − (1/2r) x̂<sub>0</sub>′]</p>
        <p>with r the ratio of the step before to this one, in λ; without the second term it is DDIM. The weights
        shown are these very numbers, and the test suite recomputes every step from them.</p>
        <p>For pictures from words in 2, 3, 4, 5, 6, 8 or 10 calls our sampler has better ones: times and weights
        fitted to this very network, over all predictions so far, so that few calls end where many would (arXiv
        2510.17699). What is coarse is settled before what is fine, so a second sum is added smoothed (by 1, 2, 1
        across and down); and as a long step leads far in one direction, each call has its own guidance. So 10
        calls may end nearer than 12, which have none of this.</p>
        <p>DDIM’s weights are known as well, and DDPM’s, which adds fresh noise (Ho et al. 2020, equation 7). For
        other samplers they are measured from the arrays by least squares.</p>
        <p>Where a hole is filled, our sampler begins with a leap: x<sub>next</sub> = α<sub>next</sub> x̂<sub>0</sub>
        + σ<sub>next</sub> ε with a new ε, the mean of what may be there under fresh noise (arXiv 2112.05146).</p>
        <p>Attention: softmax(q kᵀ/√d) over the words, here averaged over heads and layers. At every pixel the words'
        shares sum to one, the marks for the beginning and the end of the prompt included.</p>
        <p>“A cat left of a dog” is painted in two overlapping windows: in one of them the network is asked for “a
        cat”, in the other for “a dog”, and x̂<sub>0</sub> is put together by place (arXiv 2302.08113), with one
        ground for both. The words are those of both; where no window is, x̂<sub>0</sub> goes on as the windows
        end.</p>
        <p class="nv-source">Salimans &amp; Ho 2022, arXiv 2202.00512, appendix D; Lu et al. 2022, arXiv
        2211.01095, algorithm 2;
        Ho &amp; Salimans 2022, arXiv 2207.12598, equation 6; Hertz et al. 2022, arXiv 2208.01626.</p>""",
    ),
    "compare": (
        "Different samplers and settings take noise to pictures, with more or fewer calls of the network.",
        """<p>From the same noise, deterministic samplers all head for the same picture: the end of one continuous
        path, of
        which each takes steps. The curve shows how far the prediction of each step still is from where a run of 100
        steps with the same noise, words and guidance ends. A good sampler comes near in few calls. DDPM adds noise on
        its way and so ends elsewhere.</p>
        <p>What costs time is the calls of the network, not the steps: Heun makes two in a step. With guidance a call
        is given two pictures, one with the words and one without.</p>
        <p>Stronger guidance is another flow, with another end, and another seed another beginning: each run is
        measured against the end of its own flow.</p>""",
        """<p>All but DDPM, which samples
        the reverse of the noising chain, integrate the probability-flow equation dx/dt = f(t) x − ½ g(t)² ∇ log
        p<sub>t</sub>(x). With λ =
        log(α/σ) it
        reads d(x/σ)/dλ = e<sup>λ</sup> x̂<sub>0</sub>(x, λ): only the prediction has to be approximated. A method
        of order k has a global error of O(h<sup>k</sup>); our sampler’s weights for 2 to 6, 8 and 10 calls are fitted
        to this network, so that they come nearer than their number of calls would let one expect. The distance drawn
        is √mean (x̂<sub>0</sub> − x*)², with pixels in [−1, 1].</p>
        <p class="nv-source">Song et al. 2021, arXiv 2011.13456, section 4.3; Song, Meng &amp; Ermon 2021, arXiv
        2010.02502.</p>""",
    ),
    "plane": (
        "The same algorithm on points instead of pictures: here the whole space can be seen.",
        """<p>A picture of 3 072 numbers is a point in a space of 3 072 dimensions; here a “picture” has two. Noise
        is a round
        cloud; the data are a shape. Forward, every point walks at random until the shape is forgotten. Backward,
        every
        point follows the arrows, and the arrows come from a small network that you train now. It uses the studio's
        own
        schedule, loss and sampler.</p>
        <p>Guidance toward one class moves points away from the other; too much of it pushes them off the shape, as it
        over-saturates pictures.</p>""",
        """<p>The best prediction is E[x<sub>0</sub> | x<sub>t</sub>]; by Tweedie's formula it is (x<sub>t</sub> +
        σ² ∇ log
        p<sub>t</sub>(x<sub>t</sub>))/α, so that a network that only removes noise knows the score of every blurred
        density. With α
        = cos φ and σ = sin φ the flow is dx/dφ = v: the arrows drawn are −v, the way back to the data.</p>
        <p>Forward the points take the steps of the Markov chain, x<sub>t</sub> = r x<sub>s</sub> + q ε with r =
        α<sub>t</sub>/α<sub>s</sub> and q² = σ<sub>t</sub>² − r² σ<sub>s</sub>²: rough paths. Backward they follow
        a differential equation:
        smooth ones. At every t both clouds have the same density, if all points are meant,
        without guidance, and the network is perfectly trained.</p>
        <p class="nv-source">Efron 2011, doi 10.1198/jasa.2011.tm11181; Vincent 2011, doi 10.1162/NECO_a_00142;
        Song et al. 2021,
        arXiv 2011.13456.</p>""",
    ),
}


def panels(samplers: Mapping[str, str]) -> str:
    """The whole tab, before anything is drawn into it."""
    tabs = "".join(
        f'<button type="button" role="tab" data-go="{key}" id="nv-tab-{key}" aria-controls="nv-{key}" '
        f'aria-selected="{str(key == "forward").lower()}">{name}</button>'
        for key, name in _NAMES.items()
    )
    bodies = {"forward": _FORWARD, "reverse": _reverse(samplers), "compare": _compare(samplers), "plane": _PLANE}
    parts = "".join(
        f'<section class="nv-panel" role="tabpanel" id="nv-{key}" aria-labelledby="nv-tab-{key}" data-panel="{key}"'
        f"{'' if key == 'forward' else ' hidden'}>{words(key)}{body}</section>"
        for key, body in bodies.items()
    )
    return (
        '<div class="nv"><div class="nv-bar">'
        f'<div class="nv-top"><div class="nv-tabs" role="tablist" aria-label="Noise views">{tabs}</div>{_TAKE}</div>'
        f'{_RAIL}</div><p class="nv-message" role="status" data-slot="message"></p>{parts}{_TOUR}</div>'
    )


def words(key: str) -> str:
    """The three layers of a view."""
    sentence, idea, mathematics = _WORDS[key]
    return (
        f'<div class="nv-words"><p class="nv-lead">{sentence}</p>'
        f"<details><summary>The idea</summary>{idea}</details>"
        f"<details><summary>The mathematics</summary>{mathematics}</details></div>"
    )


_TAKE = (
    '<div class="nv-take"><button type="button" data-tour="begin">Guided tour</button>'
    '<button type="button" data-take="link">Copy link</button>'
    '<span role="group" aria-label="Take this view along">Save '
    + "".join(
        f'<button type="button" data-take="{kind}" title="{title}">{name}</button>'
        for kind, name, title in (
            ("webp", "WebP", "animation, lossless"),
            ("gif", "GIF", "animation"),
            ("mp4", "MP4", "film; takes as long as it plays"),
            ("strip", "PNG", "strip of all moments"),
            ("csv", "CSV", "the numbers, as a table"),
            ("json", "JSON", "the numbers, and the link to this view"),
        )
    )
    + "</span></div>"
)
_TOUR = (
    '<div class="nv-tour" data-slot="tour" role="dialog" aria-label="Guided tour" hidden>'
    '<div aria-live="polite"><h3></h3><p></p></div><div class="nv-tour-row"><span></span>'
    '<button type="button" class="nv-button" data-tour="end">Close</button>'
    '<button type="button" class="nv-button" data-tour="back">Back</button>'
    '<button type="button" class="nv-button nv-main" data-tour="next">Next</button></div></div>'
)
_RAIL = """<div class="nv-rail" role="group" aria-label="Time">
<button type="button" data-act="play" aria-label="Play" title="Play (space)"></button>
<button type="button" data-act="back" aria-label="One step toward the picture" title="Left arrow">‹</button>
<button type="button" data-act="ahead" aria-label="One step toward noise" title="Right arrow">›</button>
<span class="nv-end">picture</span>
<input type="range" min="0" max="999" step="1" value="420" data-slot="rail" aria-label="Time t, from picture to
noise">
<span class="nv-end">noise</span>
<output data-slot="time">t = 420</output>
<label class="nv-loop"><input type="checkbox" data-slot="loop"> loop</label></div>"""


def plain(caption: str) -> str:
    """A caption without its markup, to be read aloud."""
    return escape(re.sub(r"<[^>]+>", "", caption))


def _figure(slot: str, caption: str, extra: str = "") -> str:
    return (
        f'<figure class="nv-fig"><canvas data-draw="{slot}" role="img" aria-label="{plain(caption)}"></canvas>'
        f"<figcaption>{caption}{extra}</figcaption></figure>"
    )


def _op(sign: str) -> str:
    return f'<span class="nv-op" aria-hidden="true">{sign}</span>'


_FORWARD = f"""<div class="nv-controls">
<div class="nv-shelf" data-slot="examples" role="group" aria-label="Pictures"></div>
<label class="nv-button">Your picture<input type="file" accept="image/*" data-slot="file"></label>
<label>Schedule <select data-slot="schedule"></select></label>
<label>Size <select data-slot="size"><option>16</option><option>32</option><option selected>64</option>
<option>128</option></select></label>
<label>Noise seed <input type="number" min="0" max="4294967295" value="0" data-slot="noise-seed"></label>
<label class="nv-check"><input type="checkbox" data-slot="standardize"> standardize</label></div>
<div class="nv-sum">{_figure("x_t", "x<sub>t</sub>, the mixture")}{_op("=")}
{_figure("signal", "α x<sub>0</sub>, what is left of the picture")}{_op("+")}
{_figure("noise", "σ ε, the noise so far")}</div>
<p class="nv-formula" data-slot="formula" aria-live="off"></p>
<div class="nv-grid"><div><h3>This moment</h3><dl data-slot="facts"></dl></div>
<div><h3>Pixel values <span>bars: x<sub>t</sub>, line: N(0, 1)</span></h3><div data-chart="histogram"></div></div>
<div><h3>Preparation</h3><div data-slot="preparation"></div></div></div>
<div class="nv-grid"><div><h3>ᾱ <span>what is left of the picture's variance</span></h3><div
data-chart="alpha_bar"></div></div>
<div><h3>log SNR</h3><div data-chart="log_snr"></div></div>
<div><h3>β <span>noise added at each step</span></h3><div data-chart="beta"></div></div></div>
<p class="nv-key" data-slot="key"></p>"""


# What the shipped run was asked for: the form beside it says the same, and Compare begins with it.
_PROMPT = "a red apple, glossy style, on a blue background"


def _options(samplers: Mapping[str, str]) -> str:
    return "".join(f'<option value="{escape(key)}">{escape(label)}</option>' for key, label in samplers.items())


def _reverse(samplers: Mapping[str, str]) -> str:
    return f"""<form class="nv-controls" data-form="run">
<label class="nv-wide">Prompt <input type="text" name="prompt" value="{_PROMPT}" maxlength="10000"></label>
<label>Negative prompt <input type="text" name="negative_prompt" maxlength="10000" size="14"></label>
<label>Steps <input type="number" name="steps" min="1" max="1000" value="10"></label>
<label>Guidance <input type="number" name="guidance" min="0" max="30" step="any" value="3"></label>
<label>Sampler <select name="sampler">{_options(samplers)}</select></label>
<label>Seed <input type="number" name="seed" min="0" max="4294967295" value="1"></label>
<label class="nv-check" title="Guidance by the network itself, from 1 to 5 and without a negative prompt">
<input type="checkbox" name="one_pass"> one pass</label>
<label class="nv-check" title="What the words for the style change counts 1.25 times, by a third row">
<input type="checkbox" name="style_emphasis"> style emphasized</label>
<button type="submit" class="nv-button nv-main">Run</button></form>
<p class="nv-title"><b data-slot="caption"></b> <span data-slot="stages" role="group" aria-label="Size"></span></p>
<div class="nv-diagram">{_figure("rx_t", "x<sub>t</sub>, seen")}{_op("→ network →")}
<div class="nv-pair">{_figure("reps", "ε̂, predicted noise <small>(half strength)</small>")}
{_figure("rx0", "x̂<sub>0</sub>, predicted picture")}</div>
{_op("→ sampler →")}{_figure("rx_next", "x<sub>next</sub>")}{
        _figure("rdiff", "what the words change in x̂<sub>0</sub> <small>(full strength; gray: nothing)</small>")
    }</div>
<div class="nv-grid nv-two"><div><h3>Written out</h3><div data-slot="arithmetic"></div></div>
<div><h3>How the sampler weighs</h3><div data-slot="weights"></div></div></div>
<div class="nv-told" data-slot="told"></div>
<h3>Attention to each word <span>at the nearest step looked into; each word from where it counts least, dark, to
most</span></h3>
<div class="nv-maps" data-slot="maps"></div>
<h3>Inside the U-Net <span>channels × height × width, and the channels that vary most; dashed: skip
connections</span></h3>
<div class="nv-unet" data-slot="unet" tabindex="0" role="group" aria-label="The U-Net, stage by stage"></div>"""


def _lane(number: int, options: str) -> str:
    """The settings of one of the runs that are compared."""
    of = f"of run {number}"
    return f"""<fieldset class="nv-lane" data-lane><legend>Run {number}</legend><i style="--c:var(--nv-{number})"></i>
<select name="sampler" aria-label="Sampler {of}">{options}</select>
<input type="number" name="steps" min="1" max="1000" value="10" required aria-label="Steps {of}">
<input type="number" name="guidance" min="0" max="30" step="any" value="3" required aria-label="Guidance {of}">
<input type="number" name="seed" min="0" max="4294967295" value="1" required aria-label="Seed {of}">
<button type="button" data-act="drop" aria-label="Leave run {number} out" title="Leave out">×</button></fieldset>"""


def _compare(samplers: Mapping[str, str]) -> str:
    lanes = "".join(_lane(number, _options(samplers)) for number in range(1, 5))
    return f"""<form class="nv-compare" data-form="compare"><div class="nv-controls">
<label class="nv-wide">Prompt <input type="text" name="prompt" value="{_PROMPT}" maxlength="10000"></label>
<label>Begin with <select name="what"><option value="samplers">samplers</option><option value="steps">steps</option>
<option value="guidance">guidance</option><option value="seeds">seeds</option>
<option value="own" hidden>your own choice</option></select></label></div>
<div class="nv-lanes"><div class="nv-lane" aria-hidden="true"><i></i><span>Sampler</span><span>Steps</span>
<span>Guidance</span><span>Seed</span></div>{lanes}</div>
<div class="nv-controls"><button type="submit" class="nv-button nv-main">Compare</button>
<button type="button" class="nv-button" data-act="add">Add a run</button></div></form>
<div class="nv-runs" data-slot="runs"><p class="nv-quiet">Two to four runs on one rail: choose them, and press
Compare.</p></div>
<div class="nv-grid nv-half" data-slot="distance" hidden><div><h3>Distance to the converged picture <span>along
t</span></h3><div data-chart="distance"></div></div>
<div><h3>The same <span>over network calls</span></h3><div data-chart="cost"></div></div></div>
<p class="nv-quiet" data-slot="distance-of"></p>"""


_PLANE = """<div class="nv-controls">
<label>Shape <select data-slot="shape"><option>two moons</option><option>spiral</option><option>rings</option>
<option>letters</option><option value="drawing">drawn by hand (with a pointer)</option></select></label>
<label data-slot="text-field" hidden>Letters <input type="text" maxlength="3" value="ab" data-slot="text"
size="4"></label>
<span data-slot="pen" hidden><label>Pen <select data-slot="pen-class"><option value="0">first class (■)</option>
<option value="1">second class (+)</option></select></label> <button type="button" class="nv-button"
data-act="clear">Clear
</button></span>
<button type="button" class="nv-button nv-main" data-act="train">Train</button>
<label>Paint <select data-slot="aim"><option value="">both classes</option><option value="0">the first class
(■)</option>
<option value="1">the second class (+)</option><option value="0-1">first, away from second</option>
<option value="1-0">second, away from first</option></select></label>
<label><span>Guidance <output data-slot="guide-is">1</output></span>
<input type="range" min="0" max="8" step="0.5" value="1" data-slot="guide" aria-label="Guidance"></label>
<span class="nv-quiet" data-slot="guide-note"></span>
</div><div class="nv-plane"><div><canvas data-draw="plane" role="img" tabindex="0"
aria-label="Points on their way between noise and the shape"></canvas></div>
<div class="nv-side"><div class="nv-toggles" role="group" aria-label="Shown">
<label><input type="radio" name="nv-way" value="reverse" checked data-slot="way"> noise to points (the network's
flow)</label>
<label><input type="radio" name="nv-way" value="forward" data-slot="way"> points to noise (random walks)</label>
<label><input type="checkbox" checked data-show="data"> the points to learn (first class ■, second +)</label>
<label><input type="checkbox" checked data-show="density"> density of all of them</label>
<label><input type="checkbox" checked data-show="arrows"> flow</label>
<label><input type="checkbox" data-show="paths"> single paths</label></div>
<h3>Loss <span data-slot="trained"></span></h3><div data-chart="loss"></div></div></div>"""
