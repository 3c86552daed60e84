"""The words of the documents family: things, attributes with their values, and filler."""

from __future__ import annotations

THINGS = (
    "otter falcon badger heron lynx marten raven beaver lizard salmon trout moose bison hare mole "
    "shrew weasel stoat ferret gecko toad newt viper cobra python eagle osprey kestrel magpie crow "
    "finch robin wren sparrow swallow swift lark dove pigeon stork crane egret ibis pelican gull "
    "tern puffin seal walrus whale dolphin orca shark ray eel carp pike perch tiger panther jaguar "
    "puma zebra camel"
).split()

VALUES: dict[str, list[str]] = {
    "color": "red blue green white black brown pink grey violet orange".split(),
    "city": "oslo cairo lima quito paris rome tokyo delhi perth dakar".split(),
    "food": "bread rice soup cheese honey butter noodle salad pasta stew".split(),
    "tool": "hammer saw chisel drill wrench pliers rasp plane shovel rake".split(),
    "metal": "iron copper silver gold zinc nickel lead cobalt chrome brass".split(),
    "tree": "oak birch maple cedar willow poplar spruce larch alder elm".split(),
    "stone": "granite marble slate basalt flint quartz opal jade ruby topaz".split(),
    "fruit": "apple pear plum cherry mango lemon melon grape peach quince".split(),
}

# attributes whose values are numbers, with the half-open range of those numbers
NUMBERS = {"age": (10, 100), "code": (100, 1000)}

ATTRIBUTES = (*VALUES, *NUMBERS)

FILLER = (
    "we walked past an old mill near the river then rain came and nobody spoke for a moment later "
    "some children played by lamp light under wide clouds while wind moved slowly over fields "
    "which had long been quiet so they rested before going home with baskets full letters from "
    "friends were read again but few understood them until winter ended at last all seemed bright "
    "calm warm"
).split()
