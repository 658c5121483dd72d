//! Word lists of the generated stories: names, places, things, promises and so on.

/// Names with the pronoun they take.
pub(super) const NAMES: [(&str, &str); 36] = [
    ("Ada", "she"),
    ("Anton", "he"),
    ("Bela", "he"),
    ("Bruno", "he"),
    ("Clara", "she"),
    ("Dario", "he"),
    ("Edda", "she"),
    ("Elias", "he"),
    ("Fanny", "she"),
    ("Felix", "he"),
    ("Greta", "she"),
    ("Hanno", "he"),
    ("Ida", "she"),
    ("Ilya", "he"),
    ("Jonas", "he"),
    ("Judith", "she"),
    ("Karim", "he"),
    ("Lena", "she"),
    ("Leo", "he"),
    ("Livia", "she"),
    ("Malik", "he"),
    ("Mira", "she"),
    ("Nadia", "she"),
    ("Nils", "he"),
    ("Olga", "she"),
    ("Oscar", "he"),
    ("Paula", "she"),
    ("Pavel", "he"),
    ("Rosa", "she"),
    ("Samir", "he"),
    ("Sofia", "she"),
    ("Tom", "he"),
    ("Ulla", "she"),
    ("Viktor", "he"),
    ("Wanda", "she"),
    ("Yara", "she"),
];

/// Places, each with the preposition for being there.
pub(super) const PLACES: [(&str, &str); 24] = [
    ("at", "the old mill"),
    ("in", "the garden"),
    ("by", "the river"),
    ("at", "the market"),
    ("in", "the attic"),
    ("at", "the harbour"),
    ("in", "the library"),
    ("under", "the stone bridge"),
    ("in", "the kitchen"),
    ("at", "the railway station"),
    ("on", "the hill"),
    ("in", "the orchard"),
    ("at", "the lighthouse"),
    ("in", "the school"),
    ("by", "the well"),
    ("in", "the barn"),
    ("at", "the bakery"),
    ("in", "the forest"),
    ("on", "the beach"),
    ("in", "the workshop"),
    ("at", "the crossroads"),
    ("in", "the chapel"),
    ("by", "the pond"),
    ("in", "the cellar"),
];

/// Adjectives for things.
pub(super) const LOOKS: [&str; 20] = [
    "red", "blue", "green", "yellow", "white", "black", "silver", "golden", "small", "heavy",
    "wooden", "painted", "broken", "shiny", "dusty", "striped", "round", "old", "new", "strange",
];

/// Things that can be carried.
pub(super) const THINGS: [&str; 28] = [
    "kite", "lantern", "key", "basket", "drum", "book", "bell", "map", "cup", "box", "whistle",
    "hat", "coin", "mirror", "flute", "letter", "clock", "spoon", "boat", "umbrella", "scarf",
    "candle", "shell", "bottle", "hammer", "feather", "lamp", "ball",
];

/// Promises, as they are made and as they are kept.
pub(super) const PROMISES: [(&str, &str); 20] = [
    ("water the roses", "watered the roses"),
    ("feed the hens", "fed the hens"),
    ("write to the captain", "wrote to the captain"),
    ("mend the gate", "mended the gate"),
    ("sing for the baker", "sang for the baker"),
    ("bring in the washing", "brought in the washing"),
    ("sweep the stairs", "swept the stairs"),
    ("count the sheep", "counted the sheep"),
    ("polish the shoes", "polished the shoes"),
    ("paint the fence", "painted the fence"),
    ("ring the evening bell", "rang the evening bell"),
    ("stack the firewood", "stacked the firewood"),
    ("learn a poem", "learned a poem"),
    ("peel the apples", "peeled the apples"),
    ("brush the pony", "brushed the pony"),
    ("light the stove", "lit the stove"),
    ("wind the big clock", "wound the big clock"),
    ("carry the milk upstairs", "carried the milk upstairs"),
    ("knead the dough", "kneaded the dough"),
    ("close the shutters", "closed the shutters"),
];

/// What somebody likes to eat or drink.
pub(super) const TREATS: [&str; 20] = [
    "plum cake",
    "warm milk",
    "fresh bread",
    "honey",
    "pea soup",
    "roasted nuts",
    "apple juice",
    "ginger biscuits",
    "rice pudding",
    "cold melon",
    "cherry jam",
    "mint tea",
    "potato salad",
    "pancakes",
    "cheese",
    "baked pears",
    "hot chocolate",
    "barley soup",
    "walnut bread",
    "strawberries",
];

/// The weather of the day.
pub(super) const WEATHERS: [&str; 12] = [
    "windy", "sunny", "grey", "cold", "warm", "foggy", "bright", "rainy", "quiet", "frosty",
    "misty", "golden",
];

/// Days and times at which a story begins.
pub(super) const TIMES: [&str; 8] = [
    "Monday morning",
    "Tuesday morning",
    "Wednesday morning",
    "Thursday afternoon",
    "Friday afternoon",
    "Saturday morning",
    "Sunday afternoon",
    "holiday morning",
];

/// Who asks in the evening.
pub(super) const ELDERS: [&str; 8] = [
    "Grandmother",
    "Grandfather",
    "the teacher",
    "the miller",
    "the neighbour",
    "Aunt Hilda",
    "Uncle Max",
    "the postman",
];

/// Sentences that change nothing.
pub(super) const ASIDES: [&str; 16] = [
    "A dog barked somewhere.",
    "The clouds moved slowly.",
    "Nobody was in a hurry.",
    "A bell rang far away.",
    "Two swallows flew past.",
    "It smelled of rain.",
    "The cat watched from the wall.",
    "For a while it was very still.",
    "Somebody was laughing behind a hedge.",
    "A cart rolled by.",
    "The light was soft.",
    "Leaves danced over the path.",
    "The clock struck the hour.",
    "A child waved from a window.",
    "Bees hummed in the clover.",
    "The road was dusty.",
];
