"""Everyday words that no generated scene shows and no other generated prompt contains.

No noun is a category of the scenes, a synonym or near-synonym of one ("teacup", "truck" for a van), a part of one
("wheel"), or something in a background ("lawn"). No adjective fits a drawing. So a prompt with such a word has no
target.

Each word belongs to training, to validation or to the test splits, see `words_of`. A hash decides, so that a new word
does not move others.
"""

import zlib
from itertools import accumulate

from maskselect.scenes.spec import SPLITS

PARTS = ("train", "val", "test")

_SALT = 30
_SHARES = {"test": 5, "val": 2, "train": 13}  # of twenty words

_GROUPS = {
    "animals": """
        alligator ant anteater antelope baboon badger bat bear beaver bee bison boar buffalo bull bulldog bunny
        butterfly camel cat cheetah chicken chimpanzee chipmunk cobra cockroach cougar cow coyote crab crane
        cricket crocodile crow cuckoo deer dinosaur donkey dove dragon dragonfly duck eagle elephant elk emu
        falcon ferret flamingo flea fox frog gazelle gecko giraffe goat goose gorilla grasshopper hamster hare
        hawk hedgehog hen heron hippo hornet horse hyena iguana jaguar jellyfish kangaroo kitten koala ladybird
        lamb lemur leopard lion lizard llama lobster lynx magpie mammoth mole mongoose monkey moose mosquito
        moth mouse mule octopus orangutan ostrich otter owl ox oyster panda panther parrot peacock pelican
        penguin pigeon pony poodle porcupine possum puppy python rabbit raccoon rat raven reindeer rhino robin
        rooster salamander scorpion sheep shrimp skunk sloth slug snail snake sparrow spider squid squirrel
        stork swallow swan tiger toad tortoise toucan turkey turtle unicorn vulture walrus wasp weasel wolf
        wombat woodpecker worm yak zebra
    """,
    "vehicles": """
        aeroplane airship ambulance barge bicycle bike bulldozer canoe caravan carriage chariot dinghy excavator
        ferry forklift freighter gondola helicopter hovercraft jet kayak lifeboat locomotive lorry moped
        motorbike motorcycle parachute plane pram raft rickshaw rocket rowboat sailboat satellite scooter
        skateboard sled sledge snowplough spaceship speedboat steamboat steamroller submarine tank tractor tram
        tricycle trolley truck tugboat unicycle warship wheelbarrow yacht zeppelin
    """,
    "buildings": """
        airport aqueduct bridge castle cathedral dam factory fountain hangar harbour igloo lighthouse monument
        mosque obelisk observatory pagoda palace pier playground silo skyscraper stadium statue temple tent
        tunnel viaduct waterwheel windmill zoo
    """,
    "tools": """
        anvil axe broom bucket chainsaw chisel clamp compressor crowbar dagger drill funnel gun hacksaw hammer
        handsaw harpoon hatchet hoe hook hose jackhammer ladder lasso lawnmower machete mallet mop musket nail
        needle pickaxe pistol pitchfork plough plunger pulley rifle rope sander sandpaper saw scalpel scissors
        scythe shotgun shovel sickle sledgehammer spade spanner spear stapler stepladder sword thermometer
        toolbox trowel tweezers wrench
    """,
    "food": """
        almond apple apricot artichoke asparagus aubergine avocado bacon baguette banana bean beetroot biscuit
        blackberry blueberry bread broccoli brownie bun burger burrito butter cabbage cake carrot cashew
        cauliflower celery cheese cherry chestnut chilli chocolate coconut cookie corncob courgette cracker
        cranberry croissant cucumber cupcake dumpling fig garlic gherkin ginger grape grapefruit ham hamburger
        hazelnut hotdog kiwi lasagna leek lemon lentil lettuce lime lollipop lychee mango marshmallow meatball
        melon muffin mushroom noodle nut olive omelette onion pancake papaya parsnip pasty pea peach peanut pear
        pepper pie pineapple pistachio plum pomegranate popcorn potato pretzel pudding pumpkin quiche radish
        raisin raspberry rhubarb risotto salad sandwich sausage scone spaghetti spinach strawberry sushi taco
        toast tomato tortilla turnip waffle walnut watermelon yoghurt
    """,
    "furniture and household": """
        ashtray bathtub bed blender bookcase bookend broomstick bunk cabinet candle casket clock clothesline
        couch cradle crib cupboard curtain cushion doorbell drawer dresser easel fireplace fork freezer fridge
        grill hammock hanger hourglass iron kettle knife ladle letterbox mantelpiece mattress microwave mirror
        napkin nightstand oven pillow radiator saucepan sideboard sieve sink skillet sofa spatula sponge spoon
        teaspoon toaster toilet toothbrush towel tray umbrella wardrobe washbasin whisk
    """,
    "clothing": """
        anorak apron backpack bandana beanie belt beret bikini blazer blouse bonnet boot bowtie bra briefcase
        cape cardigan cloak clog coat corset dress fedora glove gown handbag handkerchief hat headscarf helmet
        hoodie jacket jersey jumper kilt kimono mitten moccasin nightgown parka pocket poncho pullover purse
        pyjamas raincoat robe rucksack sandal sari sarong scarf shawl shirt shoe skirt slipper sneaker sock
        sombrero stocking suitcase sunglasses sweater swimsuit tie trousers tunic turban tuxedo veil vest
        waistcoat wallet watch wig zipper
    """,
    "electronics": """
        amplifier antenna battery calculator camcorder camera charger computer dishwasher drone earphone fan
        gramophone hairdryer headphones joystick jukebox keyboard laptop loudspeaker megaphone microchip
        microphone microscope modem monitor phone photocopier plug printer processor projector radar radio
        refrigerator robot router scanner screen smartphone speaker stereo stopwatch tablet telephone television
        transistor turbine turntable typewriter webcam
    """,
    "people": """
        acrobat actor angel archer astronaut baby baker ballerina barber beggar bishop boxer boy bridesmaid
        butcher butler captain carpenter clown cowboy cyclist dancer dentist detective doctor farmer firefighter
        fisherman gardener ghost giant girl gnome hairdresser juggler king knight lady lawyer librarian
        lifeguard lumberjack magician man mechanic mermaid miner monk monster musician ninja nun nurse painter
        photographer pilot pirate plumber policeman postman priest prince princess queen sailor samurai
        scarecrow scientist shepherd singer skeleton skier snowman soldier student surgeon swimmer tailor
        teacher thief toddler tourist vampire viking violinist waiter waitress warrior witch wizard woman zombie
    """,
    "nature": """
        acorn avalanche boulder cactus canyon carnation cave cliff cloud comet coral crater daffodil daisy
        feather geyser glacier hurricane iceberg icicle lightning lily oasis orchid pebble pinecone poppy
        rainbow reef rose seashell seaweed sunflower thistle thorn tornado tulip volcano waterfall
    """,
    "leisure": """
        accordion anchor arrow bagpipe banjo banner barbell barrel baton bell binoculars bow cannon cello
        chessboard cigar cigarette clarinet coffin crayon crutch cymbal dartboard doll drum dumbbell dynamite
        envelope flag flute guitar hairbrush harmonica harp jigsaw lipstick magnet marionette medal newspaper
        oboe paddle paintbrush pencil piano pinwheel pipe puppet puzzle razor sandcastle saxophone seesaw
        shuttlecock skate ski snowboard stamp stroller surfboard syringe teddy ticket toothpaste totem
        trampoline trombone trophy trumpet tuba ukulele violin wand wheelchair whistle windsock xylophone
    """,
}

_ADJECTIVES = """
    bald bandaged barefoot barking bearded bleeding boiled braided burning buttered charred cracked crocheted
    crumpled crushed crying dancing dented dripping embroidered exploding feathery flying fried frowning frozen
    furry galloping grilled growling hairy headless jumping kneeling knitted laughing limping melting molten mouldy
    peeled purring quilted roasted running shattered shivering shredded singing sleeping sliced smiling smoking
    sneezing snoring splintered steaming tattooed toasted torn upholstered whispering winged woolly wrinkled yawning
"""

NOUNS = tuple(sorted({word for group in _GROUPS.values() for word in group.split()}))
ADJECTIVES = tuple(_ADJECTIVES.split())

_UNCOUNTED = """
    asparagus bacon binoculars bison bread broccoli butter celery coral deer garlic ginger ham headphones hovercraft
    lettuce lightning moose popcorn pyjamas reindeer rhubarb sandpaper scissors seaweed sheep shrimp spaghetti spinach
    squid sunglasses sushi toast toothpaste trousers tweezers
"""
_PLURALS = {
    "goose": "geese", "knife": "knives", "mosquito": "mosquitoes", "mouse": "mice", "ox": "oxen",
    "potato": "potatoes", "scarf": "scarves", "thief": "thieves", "tomato": "tomatoes", "wolf": "wolves",
}  # fmt: skip


def words_of(split: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nouns and adjectives of a split's prompts; all test splits have the same.

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
    part = split if split in PARTS else "test"
    return _WORDS[part]


def _plural(noun: str) -> str:
    if noun in _UNCOUNTED.split():
        return noun
    if noun.endswith("man"):
        return noun[:-3] + "men"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return _PLURALS.get(noun, noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s"))


def _part(word: str) -> str:
    place = zlib.crc32(f"{_SALT} {word}".encode()) % sum(_SHARES.values())
    return next(part for part, end in zip(_SHARES, accumulate(_SHARES.values()), strict=True) if place < end)


def _share(words: tuple[str, ...], part: str) -> tuple[str, ...]:
    return tuple(word for word in words if _part(word) == part)


_WORDS = {part: (_share(NOUNS, part), _share(ADJECTIVES, part)) for part in PARTS}

UNKNOWN_PLURALS = {noun: _plural(noun) for noun in NOUNS}
