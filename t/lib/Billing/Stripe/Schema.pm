# Parameters checked and typed by a schema (the few words of JSON Schema used here: type, properties, required, enum, items, anyOf,
# additionalProperties). Two sources of schemas: build/stripe-schemas.json, made from the types of npm stripe by script/stripe-schemas,
# which says what Stripe knows; and what each resource of the stand-in declares with the words below, which is what it models.
package Billing::Stripe::Schema;
use v5.36;
use Billing::Stripe::Error qw(refuse missing_parameter unknown_parameter);
use Exporter 'import';
use Mojo::JSON ();

our @EXPORT_OK = qw(check stripe_schemas text integer boolean one_of object array map_of_text emptyable any_of);

# --- the words ---

sub text() { {type => 'string'} }
sub integer() { {type => 'integer'} }
sub boolean() { {type => 'boolean'} }
sub one_of(@values) { {type => 'string', enum => \@values} }
sub object(%properties) { {type => 'object', properties => \%properties, additionalProperties => 0} }
sub array($items) { {type => 'array', items => $items} }
sub map_of_text() { {type => 'object', additionalProperties => {type => 'string'}} }
sub any_of(@schemas) { {anyOf => \@schemas} }
sub emptyable($schema) { {anyOf => [$schema, {type => 'string', enum => ['']}]} }    # '' unsets it

# --- Stripe's own ---

# The file's requests, by "METHOD /path/:id".
sub stripe_schemas($file) {
    open my $in, '<:raw', $file or die "$file: $!\n";
    local $/;
    my $all = Mojo::JSON::decode_json(scalar <$in>);
    return $all->{requests};
}

# --- checking ---

# The value typed: numbers and booleans instead of text, lists instead of {0 => ...}. Refuses what does not fit.
# not_modelled => 1: what is unknown is known to Stripe (its own schema has been passed), but not to the stand-in.
# empty => 1: an empty text passes (the types do not tell where it unsets something).
sub check($schema, $value, $path = '', %option) {
    return check_any($schema->{anyOf}, $value, $path, %option) if $schema->{anyOf};
    my $type = $schema->{type};
    return check_object($schema, $value, $path, %option) if $type eq 'object';
    return check_array($schema, $value, $path, %option) if $type eq 'array';
    refuse("Invalid $type: a hash was passed", param => $path) if ref $value eq 'HASH' || ref $value eq 'ARRAY';
    return check_number($type, $value, $path) if $type eq 'integer' || $type eq 'number';
    return check_boolean($value, $path) if $type eq 'boolean';
    return check_text($schema, $value, $path, %option);
}

sub check_number($type, $value, $path) {
    my $form = $type eq 'integer' ? qr/^-?\d{1,15}$/ : qr/^-?\d{1,15}(?:\.\d+)?$/;
    return 0 + $value if $value =~ $form;
    empty($path) if $value eq '';
    refuse("Invalid $type: $value", param => $path, code => "parameter_invalid_$type");
}

sub check_boolean($value, $path) {
    return $value if ref $value;
    return Mojo::JSON::true if $value eq 'true';
    return Mojo::JSON::false if $value eq 'false';
    empty($path) if $value eq '';
    refuse("Invalid boolean: $value", param => $path);
}

sub check_text($schema, $value, $path, %option) {
    if (my $enum = $schema->{enum}) {
        return $value if grep { $_ eq $value } @$enum;
        my ($last) = $path =~ /([^\[\]]+)\]?$/;
        refuse("Invalid $last: must be one of " . join(', ', grep { $_ ne '' } @$enum), param => $path);
    }
    empty($path) if $value eq '' && !$option{empty};
    return $value;
}

sub empty($path) {
    refuse("You passed an empty string for '$path'. We assume empty values are an attempt to unset a parameter; however '$path' cannot be "
        . "unset. You should remove '$path' from your request or supply a non-empty value.",
        param => $path, code => 'parameter_invalid_empty');
}

sub check_object($schema, $value, $path, %option) {
    refuse("Invalid object" . ($path eq '' ? '' : ": $path"), param => $path) if ref $value ne 'HASH';
    my ($known, $rest) = ($schema->{properties} // {}, $schema->{additionalProperties});
    my @unknown = map { inside($path, $_) } grep { !$known->{$_} && !$rest } sort keys %$value;
    if (@unknown) {
        unknown_parameter(@unknown) if !$option{not_modelled};
        refuse("The stand-in does not model: @unknown", code => 'not_modelled', param => $unknown[0]);
    }
    for my $name (@{$schema->{required} // []}) {
        missing_parameter(inside($path, $name)) if !exists $value->{$name};
    }
    my %typed;
    for my $name (keys %$value) {
        my $at = inside($path, $name);
        if ($known->{$name}) {
            $typed{$name} = check($known->{$name}, $value->{$name}, $at, %option);
        } else {
            refuse("Invalid string: $at", param => $at) if ref $value->{$name};
            $typed{$name} = $value->{$name};    # a map of text: an empty value unsets its key
        }
    }
    return \%typed;
}

sub check_array($schema, $value, $path, %option) {
    if (ref $value eq 'HASH') {
        refuse('Invalid array', param => $path) if grep { !/^\d+$/ } keys %$value;
        $value = [map { $value->{$_} } sort { $a <=> $b } keys %$value];
    }
    refuse('Invalid array', param => $path) if ref $value ne 'ARRAY';
    my $index = 0;
    return [map { check($schema->{items}, $_, inside($path, $index++), %option) } @$value];
}

# The alternative that fits; when none does, the complaint of the one that came closest: of the same kind (hash or not) as the value.
sub check_any($schemas, $value, $path, %option) {
    my $complaint;
    for my $schema (@$schemas) {
        my $typed = eval { check($schema, $value, $path, %option) };
        return $typed if !$@;
        my $structured = ($schema->{type} // '') =~ /^(?:object|array)$/ ? 1 : 0;
        my $fits = $structured == (ref $value ? 1 : 0);
        $complaint = $@ if !$complaint || $fits && !($schema->{enum} && $schema->{enum}[0] eq '');
    }
    die $complaint;
}

sub inside($path, $name) { $path eq '' ? $name : "${path}[$name]" }

1;
