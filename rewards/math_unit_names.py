"""The words that stand behind a number: units with their sizes, multipliers, and what is neither."""

from __future__ import annotations

from fractions import Fraction

#: Words that multiply the number before them, and by which power of ten.
MULTIPLIERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}

#: Words after which a number is not the answer that it looks like.
_NOT_UNITS = """
    or through until till between possibly perhaps probably either versus vs alternatively zero one two three four
    five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty
    thirty forty fifty sixty seventy eighty ninety and not but nor than minus plus times to from over under by dozen
    half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths eighth eighths tenth tenths
    hundredth hundredths thousandth thousandths squared cubed factorial pi sqrt root percent maybe wrong if is are was
    equals equal mod modulo choose twice thrice double triple i e sin cos tan log ln hundred thousand million billion
    trillion infinity inf base unless else instead actually incorrect false no k where when such might could
    except excluding remainder
"""
NOT_UNITS = frozenset(_NOT_UNITS.split())

#: name | symbols, whose case counts | words, also with an s behind | what it measures | how many of the base unit
_TABLE = """
dollar | | dollar usd buck | dollar | 1
cent | | cent penny pennies | dollar | 1/100
dime | | dime | dollar | 1/10
nickel | | nickel | dollar | 1/20
euro | | euro eur | euro | 1
yen | | yen jpy | yen | 1
yuan | | yuan rmb cny 元 | yuan | 1
rupee | | rupee inr | rupee | 1
ruble | | ruble rouble | ruble | 1
won | | | won | 1
peso | | peso | peso | 1
nm | nm | nanometer nanometre | length | 1/1000000000
um | um | micrometer micrometre micron | length | 1/1000000
mm | mm | millimeter millimetre 毫米 | length | 1/1000
cm | cm | centimeter centimetre 厘米 | length | 1/100
dm | dm | decimeter decimetre 分米 | length | 1/10
m | m | meter metre 米 | length | 1
km | km | kilometer kilometre 千米 公里 | length | 1000
inch | in | inch inches | length | 127/5000
foot | ft | foot feet | length | 381/1250
yard | yd | yard | length | 1143/1250
mile | mi | mile | length | 201168/125
second | s sec | second sec 秒 | time | 1
ms | ms | millisecond | time | 1/1000
minute | min | minute min 分钟 | time | 60
hour | h hr | hour hr 小时 | time | 3600
day | | day 天 | time | 86400
week | | week wk | time | 604800
month | | month | month | 1
year | | year yr | month | 12
mg | mg | milligram milligramme | mass | 1/1000000
gram | g | gram gramme 克 | mass | 1/1000
kg | kg | kilogram kilogramme kilo 千克 公斤 | mass | 1
ton | | ton | ton | 1
tonne | | tonne | mass | 1000
ounce | oz | ounce | ounce | 1
pound | lb lbs | pound gbp quid | ounce | 16
ml | ml mL | milliliter millilitre 毫升 | volume | 1/1000
cl | cl cL | centiliter centilitre | volume | 1/100
liter | l L | liter litre 升 | volume | 1
cup | | cup | cup | 1
pint | pt | pint | cup | 2
quart | qt | quart | cup | 4
gallon | gal | gallon | cup | 16
degree | | degree deg 度 | angle | 1
radian | rad | radian rad | radian | 1
celsius | C | celsius centigrade | celsius | 1
fahrenheit | F | fahrenheit | fahrenheit | 1
kelvin | K | kelvin | kelvin | 1
newton | N | newton | force | 1
kN | kN | kilonewton | force | 1000
joule | J | joule | energy | 1
kJ | kJ | kilojoule | energy | 1000
MJ | MJ | megajoule | energy | 1000000
cal | cal | calorie | calorie | 1
kcal | kcal | kilocalorie | calorie | 1000
eV | eV | electronvolt | electronvolt | 1
keV | keV | | electronvolt | 1000
MeV | MeV | | electronvolt | 1000000
GeV | GeV | | electronvolt | 1000000000
watt | W | watt | power | 1
kW | kW | kilowatt | power | 1000
MW | MW | megawatt | power | 1000000
kWh | kWh | | kilowatthour | 1
volt | V | volt | voltage | 1
mV | mV | millivolt | voltage | 1/1000
kV | kV | kilovolt | voltage | 1000
ampere | A | ampere amp | current | 1
mA | mA | milliampere | current | 1/1000
ohm | | ohm | resistance | 1
coulomb | | coulomb | charge | 1
farad | | farad | capacitance | 1
tesla | T | tesla | field | 1
hertz | Hz | hertz | frequency | 1
kHz | kHz | kilohertz | frequency | 1000
MHz | MHz | megahertz | frequency | 1000000
GHz | GHz | gigahertz | frequency | 1000000000
pascal | Pa | pascal | pressure | 1
kPa | kPa | kilopascal | pressure | 1000
MPa | MPa | megapascal | pressure | 1000000
bar | | bar | bar | 1
atm | atm | atmosphere | atmosphere | 1
mol | mol | mole mol | amount | 1
mmol | mmol | millimole | amount | 1/1000
bit | | bit | data | 1
byte | B | byte | data | 8
KB | KB kB | kilobyte | data | 8000
MB | MB | megabyte | data | 8000000
GB | GB | gigabyte | data | 8000000000
TB | TB | terabyte | data | 8000000000000
rpm | rpm | rpm | rpm | 1
dB | dB | decibel | decibel | 1
acre | | acre | acre | 1
hectare | ha | hectare | hectare | 1
knot | | knot | knot | 1
"""
#: One word for several units: miles per hour
COMPOUND = {"mph": (("mile", 1), ("hour", -1)), "kmh": (("km", 1), ("hour", -1)), "kph": (("km", 1), ("hour", -1)),
            "fps": (("foot", 1), ("second", -1)), "mpg": (("mile", 1), ("gallon", -1)),
            "cc": (("cm", 3),), "sqft": (("foot", 2),)}  # fmt: skip
#: Words that say that something is counted, and no unit in particular; money that nothing is changed into among them
GENERIC = frozenset(
    {"unit", "units", "cad", "aud", "nzd", "hkd", "sgd", "chf", "mxn", "brl", "sek", "nok", "dkk", "pln"}
)
#: By symbol, in its own case
SYMBOLS: dict[str, str] = {}
#: By word in lower case
WORDS: dict[str, str] = {}
#: What a unit measures, and how many of the base unit it is
SIZES: dict[str, tuple[str, Fraction]] = {}

for _line in _TABLE.strip().splitlines():
    _name, _symbols, _words, _measures, _size = (part.strip() for part in _line.split("|"))
    SIZES[_name] = (_measures, Fraction(_size))
    SYMBOLS |= dict.fromkeys(_symbols.split(), _name)
    WORDS |= {form: _name for word in _words.split() for form in (word, f"{word}s")}

#: Symbols that are letters of algebra as well, behind a number and without a word around them
LETTERS = frozenset(symbol for symbol in SYMBOLS if len(symbol) == 1) | {
    "in",
    "ft",
    "lb",
    "min",
    "mi",
    "ha",
    "cl",
    "pt",
}
